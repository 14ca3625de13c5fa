-- Segments of 64,512 connections (252 addresses and 64,512 ports, counted up together): `--traffic tcp --flows 64512` of
-- sluice-pktgen, without its openings and answers. Pktgen's segments carry ACK, so let the appliance take connections up in the
-- middle: sluice setting set sloppy_tcp=1.
-- NOT RUN: see load.lua.

package.path = package.path .. ";perf/pktgen/?.lua"
local load = require "load"

load.flows("tcp", 64, "11.0.0.252", 64512)
local percent = load.search("established, 64 bytes", 1)
print(string.format("loss-free: %.2f %% of the link's speed", percent))
