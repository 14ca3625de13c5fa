-- Datagrams each of which opens a connection: `--traffic udp --life 1` of sluice-pktgen. 251 addresses and 64,512 ports, counted up
-- together, come round after 16 million packets, so raise max_connections, or lower timeout_udp, before.
-- NOT RUN: see load.lua.

package.path = package.path .. ";perf/pktgen/?.lua"
local load = require "load"

load.flows("udp", 64, "11.0.0.251", 64512)
for _, percent in ipairs({ 1, 2, 5, 10, 20 }) do
    load.report("new connections", percent, load.measure(percent))
end
