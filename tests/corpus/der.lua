--- DER by hand, whatever it says: what makes hostile files must be able to lie.

local M = {}

--- Length octets of X.690, 8.1.3.
function M.length(n)
  if n < 128 then return string.char(n) end
  local bytes = ""
  while n > 0 do
    bytes, n = string.char(n & 255) .. bytes, n >> 8
  end
  return string.char(128 | #bytes) .. bytes
end

--- One element; contents may be many strings.
function M.element(tag, ...)
  local contents = table.concat { ... }
  return string.char(tag) .. M.length(#contents) .. contents
end

local function kind(tag)
  return function(...) return M.element(tag, ...) end
end

M.sequence, M.set, M.octets, M.utf8, M.printable = kind(0x30), kind(0x31), kind(0x04), kind(0x0C), kind(0x13)
M.ia5, M.t61, M.bmp, M.universal, M.numeric = kind(0x16), kind(0x14), kind(0x1E), kind(0x1C), kind(0x12)
M.utc, M.time, M.null, M.raw_integer = kind(0x17), kind(0x18), kind(0x05), kind(0x02)

--- [n], constructed, and [n] of a primitive that is implicit.
function M.explicit(n, ...) return M.element(0xA0 | n, ...) end
function M.implicit(n, ...) return M.element(0x80 | n, ...) end

function M.bits(bytes, unused) return M.element(0x03, string.char(unused or 0), bytes) end
function M.boolean(value) return M.element(0x01, value and "\xFF" or "\0") end

--- A whole number of Lua's, or the bytes of a large one.
function M.integer(value)
  if type(value) == "string" then
    return M.element(0x02, value:byte() > 127 and "\0" or "", value)
  end
  local bytes = string.pack(">i8", value)
  while #bytes > 1 and (bytes:find "^\0[\0-\x7F]" or bytes:find "^\xFF[\x80-\xFF]") do bytes = bytes:sub(2) end
  return M.element(0x02, bytes)
end

local function base128(n)
  local bytes = string.char(n & 127)
  n = n >> 7
  while n > 0 do
    bytes, n = string.char(128 | n & 127) .. bytes, n >> 7
  end
  return bytes
end

--- An object identifier from its dotted text.
function M.oid(text)
  local numbers = {}
  for number in text:gmatch "%d+" do numbers[#numbers + 1] = math.tointeger(number) end
  local bytes = base128(numbers[1] * 40 + numbers[2])
  for i = 3, #numbers do bytes = bytes .. base128(numbers[i]) end
  return M.element(0x06, bytes)
end

--- A PEM block (RFC 7468); headers is text before the base64, ending, with an empty line.
function M.pem(label, bytes, ending, headers)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local text = bytes:gsub("..?.?", function(group)
    local n = (">I3"):unpack(group .. ("\0"):rep(3 - #group))
    local out = ""
    for shift = 18, 18 - 6 * #group, -6 do
      local index = (n >> shift & 63) + 1
      out = out .. alphabet:sub(index, index)
    end
    return out .. ("="):rep(3 - #group)
  end)
  ending = ending or "\n"
  return ("-----BEGIN %s-----\n%s%s-----END %s-----\n"):format(label, headers or "", text:gsub(("."):rep(64), "%0\n")
    :gsub("([^\n])$", "%1\n"), label):gsub("\n", ending)
end

--- Where the elements of well-formed DER begin, with the size of the header and
-- the length, depth first.
function M.walk(bytes, from, to, found)
  from, to, found = from or 1, to or #bytes, found or {}
  while from < to do
    local tag, first = bytes:byte(from, from + 1)
    local header, length = 2, first
    if first > 128 then
      header = 2 + (first & 127)
      length = (">I" .. (first & 127)):unpack(bytes, from + 2)
    end
    found[#found + 1] = { at = from, header = header, length = length }
    if tag & 0x20 ~= 0 then M.walk(bytes, from + header, from + header + length - 1, found) end
    from = from + header + length
  end
  return found
end

return M
