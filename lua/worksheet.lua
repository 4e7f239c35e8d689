-- worksheet.lua: the table of client access names: the site's rows over the
-- shipped ones (defaults/worksheet.lua says what a row holds), filled with the
-- names that the site and its running services know.  It asks nobody, and
-- changes nothing.

local loader = require "loader"
local names = require "names"
local options = require "options"
local text = require "text"

local M = {}

local FIELDS = {
  row = "string", label = "string", services = "table", hosts = "table", prefix = "string", suggest = "string",
  internal = "string or table", external = "string or table", use = "boolean", hidden = "boolean",
}

local function list_of(value)
  return type(value) == "table" and value or { value }
end

-- What is wrong with the fields of a row; nil when nothing is.
local function fault(row)
  for field, value in pairs(row) do
    if not FIELDS[field] then return ("there is no field '%s'"):format(text.escape(tostring(field))) end
    if not FIELDS[field]:find(type(value), 1, true) then
      return ("'%s' must be a %s, not a %s"):format(field, FIELDS[field], type(value))
    end
    for key, item in pairs(type(value) == "table" and value or {}) do
      if type(item) ~= "string" or not math.type(key) then return ("'%s' must be a list of strings"):format(field) end
    end
  end
  if not row.row or not row.row:find "^%w[%w_-]*$" then
    return "it needs 'row', a name of letters, digits, - and _"
  elseif not row.label and not row.hidden then
    return "it needs 'label', a text"
  end
  for _, field in ipairs { "prefix", "suggest" } do
    local ok, why = names.check((row[field] or "x") .. ".test")
    if not ok then return ("'%s': %s"):format(field, why) end
  end
  for _, field in ipairs { "internal", "external" } do
    local ok, why = names.list(list_of(row[field]))
    if not ok then return ("'%s': %s"):format(field, why) end
  end
end

-- The rows of a file, checked.
local function read(path)
  local chunk, message, code = loader.file(path)
  if not chunk then return nil, message, code end
  local ok, rows = pcall(chunk)
  if not ok then return nil, ("'%s' failed: %s"):format(path, tostring(rows)), "parse" end
  if type(rows) ~= "table" then return nil, ("'%s' returns no table of rows"):format(path), "parse" end
  local seen = {}
  for key, row in options.sorted(rows) do
    local why = not math.type(key) and "it is no part of a list" or type(row) ~= "table" and "it is no table"
      or fault(row) or seen[row.row] and "an earlier row has this name"
    if why then
      local name = type(row) == "table" and type(row.row) == "string" and (" ('%s')"):format(text.escape(row.row)) or ""
      return nil, ("'%s': row %s%s: %s"):format(path, text.escape(tostring(key)), name, why), "parse"
    end
    seen[row.row] = true
  end
  return rows
end

--- The rows of a site.
-- @param home the program's folder; site_dir the site's
-- @return array of rows | nil, message, "parse" | "denied" | "io"
function M.load(home, site_dir)
  local rows, message, code = read(home .. "/lua/defaults/worksheet.lua")
  if not rows then return nil, message, code end
  local own
  own, message, code = read(site_dir .. "/worksheet.lua")
  if not own and code ~= "missing" then return nil, message, code end
  local place, list = {}, {}
  for i, row in ipairs(rows) do place[row.row] = i end
  for _, row in ipairs(own or {}) do rows[place[row.row] or #rows + 1] = row end
  for _, row in ipairs(rows) do list[#list + 1] = not row.hidden and row or nil end
  return list
end

-- Adds names that could stand on a certificate, each once.
local function add(list, found)
  for _, name in ipairs(found) do
    name = names.check(name)
    local known = not name or name:find "^localhost%f[.\0]"
    for _, other in ipairs(list) do known = known or other == name end
    if not known then list[#list + 1] = name end
  end
end

-- The names of a service: the site's, then those of its own configuration.
-- Those that no resolver outside would find are internal.
local function names_of(service)
  local fact = { internal = {}, external = {}, driver = service.driver }
  for kind, value in options.sorted(service.names or {}) do
    add(kind == "internal" and fact.internal or fact.external, list_of(value))
  end
  local running, message
  if service.how.names then
    running, message = service.how.names(service)
  else
    running, message = service.how.settings(service)
    running = running and running.names
  end
  for _, name in ipairs(running or {}) do
    local is_known = false
    for _, other in ipairs(fact.internal) do is_known = is_known or other == name:lower() end
    if not is_known then add(name:find(".", 1, true) and fact.external or fact.internal, { name }) end
  end
  fact.problem = message
  return fact
end

--- What the site and its running services know of names.
-- @return { [service] = { internal = names, external = names, driver =, problem =
--   why its configuration could not be read, or nil } }
function M.facts(site)
  local facts = {}
  for name in pairs(site.config.services) do
    local service, message = site:service(name)
    facts[name] = service and names_of(service) or { internal = {}, external = {}, problem = message }
  end
  return facts
end

-- Those names that begin with one of the labels, if any does, else all.
local function beginning_with(found, labels)
  local list = {}
  for _, label in ipairs(labels or {}) do
    for _, name in ipairs(found) do
      if name:match "^[^.]+" == label then list[#list + 1] = name end
    end
  end
  return #list > 0 and list or found
end

local function fill_row(row, facts, domains, root_domain)
  local filled = { row = row.row, label = row.label, internal = {}, external = {}, use = row.use ~= false }
  for _, kind in ipairs { "internal", "external" } do
    add(filled[kind], list_of(row[kind]))
    for _, service in ipairs(row.services or {}) do
      if facts[service] then add(filled[kind], beginning_with(facts[service][kind], row.hosts)) end
    end
  end
  for _, domain in ipairs(row.prefix and domains or {}) do
    add(filled.external, { row.prefix .. "." .. domain:gsub("^%*%.", "") }) -- *.D is accepted like D
  end
  if row.suggest and root_domain and not next(facts) then
    add(filled.external, { row.suggest .. "." .. root_domain })
  end
  return filled
end

-- The names of a service that no row has, as a row; nil when there are none.
local function row_of_rest(service, fact, rows)
  local seen, rest = {}, { internal = {}, external = {} }
  for _, row in ipairs(rows) do
    for _, kind in ipairs { "internal", "external" } do
      for _, name in ipairs(row[kind]) do seen[name] = true end
    end
  end
  for kind, list in pairs(rest) do
    for _, name in ipairs(fact[kind]) do list[#list + 1] = not seen[name] and name or nil end
  end
  if #rest.internal == 0 and #rest.external == 0 then return nil end
  rest.row, rest.label, rest.use = "service:" .. service, "Service " .. service, true
  return rest
end

--- Rows with the names that they propose; those of a service that no row would
-- have are a row of their own.
-- @param rows as M.load returns them; facts as M.facts does
-- @param domains the accepted domains; root_domain takes their place where there
--   are none, and may be nil
-- @return array of { row =, label =, internal = names, external = names, use = bool }
function M.fill(rows, facts, domains, root_domain)
  local filled = {}
  if #domains == 0 then domains = { root_domain } end
  for i, row in ipairs(rows) do filled[i] = fill_row(row, facts, domains, root_domain) end
  for service, fact in options.sorted(facts) do filled[#filled + 1] = row_of_rest(service, fact, filled) end
  return filled
end

--- The names of the rows that are used, each once: what the world sees first.
function M.merged(rows)
  local list = {}
  for _, kind in ipairs { "external", "internal" } do
    for _, row in ipairs(rows) do
      if row.use then add(list, row[kind]) end
    end
  end
  return list
end

-- Whether a list covers a name; a wildcard stands for one label (RFC 9525,
-- section 6.3).
local function covers(list, name)
  local wildcard = name:gsub("^[^.]+", "*")
  for _, other in ipairs(list) do
    if other == name or other == wildcard then return true end
  end
  return false
end

--- The names that services use and a list lacks.
-- @return array of { name =, services = names of services }
function M.lacking(facts, list)
  local found, place = {}, {}
  for service, fact in options.sorted(facts) do
    for _, kind in ipairs { "external", "internal" } do
      for _, name in ipairs(fact[kind]) do
        local entry = place[name]
        if entry and entry.services[#entry.services] ~= service then
          entry.services[#entry.services + 1] = service
        elseif not entry and not covers(list, name) then
          place[name] = { name = name, services = { service } }
          found[#found + 1] = place[name]
        end
      end
    end
  end
  return found
end

return M
