-- The loss-free rate by size: `--search` of sluice-pktgen, once for each size of RFC 2544, section 9.1. Datagrams of 64,512 flows.
-- NOT RUN: see load.lua.

package.path = package.path .. ";perf/pktgen/?.lua"
local load = require "load"

load.flows("udp", 64, "11.0.0.252", 64512)
for _, size in ipairs({ 64, 128, 256, 512, 1024, 1280, 1518 }) do
    load.size(size)
    local percent = load.search(string.format("%d bytes", size), 1)
    print(string.format("%d bytes, loss-free: %.2f %% of the link's speed", size, percent))
end
