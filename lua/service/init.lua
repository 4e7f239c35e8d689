--- The contract of a service driver, and what drivers share.
--
-- A driver is the software behind a service: one file, `service/NAME.lua`, that
-- returns a table of the functions below.  It reads the software's own
-- configuration, and says what to run; it decides nothing about certificates,
-- and runs neither checker nor reload itself.  A site's own driver in its
-- `service/` folder shadows the one that ships.
--
--     summary                  a few words for people
--     fields                   { name = "string" }: its own settings in config.lua
--     endpoints(service)       { "https://127.0.0.1:443", ... }: where its TLS shows
--     settings(service)        what its configuration says of certificates:
--        uses_current             whether what takes effect names <dir>/current/
--        way                      "conf" | "combined" | "two paths", of that
--        lines, where             what to write, and where, if it does not
--        found                    { certificate =, key = }: the paths it names
--        names                    the names that it answers to
--        uses_sni                 whether it names the table of files() as well; nil:
--                                 it knows no certificates for some names only
--        sni_command              what to run, if it does not
--     files(service, folder, beside)  { ["nginx.conf"] = text }: files that a
--                              generation gets beside the usual ones; folder is where
--                              it will be, beside an array of { path =, names = }:
--                              certificates for their names only, the newest first
--     adopt(service)           makes the configuration name <dir>/current (which is
--                              there); a plain record of what it changed
--     adoptable(service)       optional: true, or nil, message, code: why adopt would
--                              refuse, as far as can be told without trying
--     undo(service, record)    puts that back
--     check(service)           argv of its own checker, or nil
--     reload(service)          argv
--     restart(service)         argv that starts it again after it exited, or nil
--     pid(service)             of the running master, or nil
--     verdict(result)          optional: true, or nil, message: reads the result of
--                              a check or reload whose exit status lies
--     names(service)           optional: the names that its configuration knows,
--                              more than settings(service).names where it keeps
--                              certificates for others, too; a message beside
--                              them says what could not be read
--     default(service)         optional: { certificate = path } that all its
--                              clients get by default, or nil
--
-- What fails returns nil, message, code.  A service is a table: `name`, `driver`,
-- `dir`, `names`, and the fields of the driver.

local process = require "core.process"
local file = require "core.file"
local host = require "core.host"
local lfs = require "lfs"
local paths = require "paths"

local M = {}

local required = {
  summary = "string", fields = "table", endpoints = "function", settings = "function",
  files = "function", adopt = "function", undo = "function", check = "function",
  reload = "function", restart = "function", pid = "function",
}
local optional = { adoptable = "function", verdict = "function", names = "function", default = "function" }

-- Every fault of a driver, one a line.
local function faults(driver, path)
  if type(driver) ~= "table" then
    return { ("%s: returns a %s, not a table"):format(path, type(driver)) }
  end
  local list = {}
  for field, kind in pairs(required) do
    if type(driver[field]) ~= kind then
      list[#list + 1] = ("%s: field '%s' is no %s"):format(path, field, kind)
    end
  end
  for field, value in pairs(driver) do
    local kind = optional[field]
    if kind and type(value) ~= kind then
      list[#list + 1] = ("%s: field '%s' is no %s"):format(path, field, kind)
    elseif not kind and not required[field] then
      list[#list + 1] = ("%s: unknown field '%s'"):format(path, field)
    end
  end
  table.sort(list)
  return list
end

--- The driver of a name, when it keeps the contract.
-- @return driver, or nil, message, "missing" | "usage"
function M.load(name)
  if type(name) ~= "string" or not name:find "^[%w_-]+$" then
    return nil, ("'%s' is no name of a service driver"):format(name), "usage"
  end
  local module = "service." .. name
  local found, driver, path = pcall(require, module)
  if not found then
    local absent = tostring(driver):find("module '" .. module .. "' not found", 1, true)
    return nil, absent and ("there is no service driver '%s'"):format(name)
      or ("cannot load service driver '%s': %s"):format(name, driver), absent and "missing" or "usage"
  end
  if not path or path == ":preload:" then
    path = package.searchpath(module, package.path) or "service/" .. name .. ".lua"
  end
  local list = faults(driver, path)
  if #list > 0 then
    return nil, table.concat(list, "\n"), "usage"
  end
  return driver
end

--- What a program printed, as a few words for a message: the first lines that
-- are no warnings, as valid UTF-8 without control characters.
function M.telling(output)
  local lines, warnings = {}, {}
  for line in output:gmatch "[^\r\n]*%S[^\r\n]*" do
    local list = line:lower():find "warning" and warnings or lines
    list[#list + 1] = line
  end
  local text = table.concat(#lines > 0 and lines or warnings, "; ", 1, nil):gsub("%c+", " ")
  if not utf8.len(text) then
    text = text:gsub("[\128-\255]", "?")
  end
  if #text > 400 then
    text = text:sub(1, utf8.offset(text, 0, 401) - 1) .. " ..."
  end
  return text
end

--- Runs a program of the service's to its end.
-- @return its result (see core.process), or nil, message, code
function M.run(argv, options)
  local result, message, code = process.run(argv, options)
  if not result then
    return nil, message, code
  end
  if result.status ~= 0 then
    local said = M.telling(result.stderr .. "\n" .. result.stdout)
    local ended = result.status and "exit status " .. result.status or "signal " .. result.signal
    local called = table.concat(argv, " ", 1, math.min(#argv, 5)) .. (#argv > 5 and " ..." or "")
    return nil, ("'%s' failed with %s: %s"):format(M.telling(called), ended,
      said ~= "" and said or "it printed no reason"), "refused"
  end
  return result
end

--- The program `name` that belongs to a service's program: the one beside it
-- when the site says where that is, else whatever is installed.
function M.beside(program, name)
  if program and program:find "/" then
    local path = paths.join(paths.parent(program), name)
    if lfs.attributes(path, "mode") == "file" then
      return path
    end
  end
  return name
end

--- The process that a pid file names, when it runs: a zombie does not.
function M.pid(path)
  local text = file.read(path)
  local pid = math.tointeger(tonumber(text and text:match "^%s*(%d+)%s*$"))
  local running = pid and pid > 1 and host.process(pid)
  return running and running.state ~= "Z" and running.state ~= "X" and pid or nil
end

--- argv that starts a unit again by systemd; nil where that does not run.
function M.systemctl(unit)
  if lfs.attributes("/run/systemd/system", "mode") == "directory" then
    return { "systemctl", "restart", unit }
  end
end

--- The names of a service, lower case, as a set.
function M.names(service)
  local set = {}
  for _, names in pairs(service.names or {}) do
    for _, name in ipairs(type(names) == "table" and names or { names }) do
      set[name:lower()] = true
    end
  end
  return set
end

--- A list without what is in it already.
function M.once(list)
  local seen, kept = {}, {}
  for _, value in ipairs(list) do
    if not seen[value] then
      seen[value] = true
      kept[#kept + 1] = value
    end
  end
  return kept
end

--- Those of a list for which keep holds; all when it holds for none.
function M.preferred(list, keep)
  local kept = {}
  for _, value in ipairs(list) do
    if keep(value) then
      kept[#kept + 1] = value
    end
  end
  return #kept > 0 and kept or list
end

--- Whether path lies in the service's `current`.
function M.in_current(service, path)
  return paths.inside(path, service.dir .. "/current")
end

--- The certificate and key that current's own files name.
function M.current_pair(service)
  return { certificate = service.dir .. "/current/fullchain.pem", key = service.dir .. "/current/privkey.pem" }
end

--- Refuses a path that holds a character of the Lua set `special`, which would
-- mean something else in the service's configuration.
function M.plain_path(path, special)
  local found = path:match("[%c" .. special .. "]")
  if found or path:sub(1, 1) ~= "/" then
    local why = not found and "it is not absolute"
      or found:find "%c" and "it holds a control character" or ("it holds '%s'"):format(found)
    return nil, ("'%s' cannot be named in the service's configuration: %s")
      :format(M.telling(path), why), "usage"
  end
  return path
end

--- Writes a file that the service's configuration already includes, and leaves
-- it only if `effective()` then holds and the service's checker is content.
-- @return record for undo_drop_in, or nil, message, code
function M.drop_in(path, text, effective, check)
  local written, message, code = file.write(path, text, { mode = 420, exclusive = true }) -- 0644
  if not written then
    return nil, message, code
  end
  local holds, checked
  holds, message, code = effective()
  if holds then
    checked, message, code = M.run(check)
  end
  if not (holds and checked) then
    file.remove(path)
    return nil, message, code
  end
  return { file = path, text = text }
end

--- Removes a drop-in file, unless somebody has changed it since.
function M.undo_drop_in(record)
  if not record.file then
    return true
  end
  local text, message, code = file.read(record.file)
  if not text then
    if code == "missing" then
      return true
    end
    return nil, message, code
  end
  if text ~= record.text then
    return nil, ("'%s' was changed since it was written: remove it by hand"):format(record.file), "mismatch"
  end
  return file.remove(record.file)
end

return M
