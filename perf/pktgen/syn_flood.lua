-- SYNs from all over 11.0.0.0/8: the flood of `--flood 10` of sluice-pktgen, which sends the legitimate traffic beside it; here
-- that must come from elsewhere. Pktgen has no Lua function for TCP's flags: type these two commands first, at its prompt:
--
--   range 0 tcp flag set syn
--   range 0 tcp flag clr ack
--
-- NOT RUN: see load.lua.

package.path = package.path .. ";perf/pktgen/?.lua"
local load = require "load"

load.flows("tcp", 64, "11.255.255.254", 64512)
for _, percent in ipairs({ 1, 5, 10, 50, 100 }) do
    load.report("SYN flood", percent, load.measure(percent))
end
