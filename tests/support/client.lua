-- A client that never stops: handshakes with every endpoint, round after
-- round, until the file STOP exists; then prints how many there were and how
-- many failed.  After its first round it makes STOP.ready.  Run by the demo and
-- by tests as: certwright client.lua STOP NAME ENDPOINT...

local file, probe = core.file, core.probe
local stop, name = arg[1], arg[2]
local endpoints = { table.unpack(arg, 3) }
local handshakes, failed, seen, failures = 0, 0, {}, {}

repeat
  for _, result in ipairs(probe.run(endpoints, { name = name, timeout = 10 })) do
    handshakes = handshakes + 1
    if result.error then
      failed = failed + 1
      failures[#failures + 1] = ("%s: %s"):format(result.endpoint, result.error)
    else
      seen[result.fingerprint] = true
    end
  end
  if not file.stat(stop .. ".ready") then assert(file.write(stop .. ".ready", "")) end
until file.stat(stop)

local certificates = 0
for _ in pairs(seen) do certificates = certificates + 1 end
print(("%d handshakes, %d failed, %d certificates seen"):format(handshakes, failed, certificates))
for i = 1, math.min(5, #failures) do print(failures[i]) end
