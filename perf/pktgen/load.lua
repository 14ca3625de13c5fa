-- What the scripts beside this one share: the loads of sluice-pktgen, set up for Pktgen-DPDK on real NICs.
--
-- Pktgen-DPDK only sends and counts: whether what comes back is right, and from whom, only sluice-pktgen tells.
-- NOT RUN on Pktgen: there was no NIC at hand. Written after Pktgen-DPDK's own documentation of its Lua interface.
--
--   pktgen -l 0-2 -n 4 -a 0000:01:00.0 -a 0000:01:00.1 -- -P -m "1.0,2.1" -f perf/pktgen/established.lua
--
-- Change the addresses below to yours; the service is the one of configs/bare-metal.toml's kind:
--   sluice service add tcp 10.0.0.1:80 --scheduler rr, and its real servers.

local load = {}

-- Pktgen's port on the clients' side, and the one on the real servers' side where packets arrive.
load.port = "0"
load.behind = "1"

load.client_mac = "02:00:00:00:00:fe"
load.appliance_mac = "02:00:00:00:00:01"
load.vip = "10.0.0.1"
load.vport = 80

-- Seconds of a measurement, and those for the appliance to come to rest.
load.seconds = 10
load.rest = 2

-- One range of Pktgen's: from, by steps of, up to.
local function range(set, from, step, to)
    set(load.port, "start", from)
    set(load.port, "inc", step)
    set(load.port, "min", from)
    set(load.port, "max", to)
end

-- Packets of `protocol` and `size` (frame check sequence included) from so many clients' ports at each of the addresses
-- 11.0.0.1 to `last_client`. Pktgen counts address and port up at the same time.
function load.flows(protocol, size, last_client, ports)
    pktgen.set(load.port, "count", 0)
    pktgen.set(load.port, "burst", 32)
    pktgen.set_type(load.port, "ipv4")
    pktgen.range.ip_proto(load.port, protocol)
    range(pktgen.range.src_mac, load.client_mac, "00:00:00:00:00:00", load.client_mac)
    range(pktgen.range.dst_mac, load.appliance_mac, "00:00:00:00:00:00", load.appliance_mac)
    range(pktgen.range.src_ip, "11.0.0.1", "0.0.0.1", last_client)
    range(pktgen.range.dst_ip, load.vip, "0.0.0.0", load.vip)
    range(pktgen.range.src_port, 1024, 1, 1023 + ports)
    range(pktgen.range.dst_port, load.vport, 0, load.vport)
    load.size(size)
    pktgen.set_range(load.port, "on")
end

-- From now on frames have this size.
function load.size(size)
    pktgen.set(load.port, "size", size)
    range(pktgen.range.pkt_size, size, 0, size)
end

-- Sends at so many per cent of the link's speed; what was sent and what arrived behind the appliance meanwhile.
function load.measure(percent)
    pktgen.clr()
    pktgen.set(load.port, "rate", percent)
    pktgen.start(load.port)
    pktgen.delay(load.seconds * 1000)
    pktgen.stop(load.port)
    pktgen.delay(load.rest * 1000)
    local stats = pktgen.portStats("all", "port")
    local sent = stats[tonumber(load.port)].opackets
    local arrived = stats[tonumber(load.behind)].ipackets
    return sent, arrived
end

-- A line of the result.
function load.report(name, percent, sent, arrived)
    print(string.format(
        "%-24s %6.2f %%  sent %d (%.3f Mpps)  arrived %d  lost %d",
        name, percent, sent, sent / load.seconds / 1e6, arrived, sent - arrived
    ))
end

-- The highest rate, in per cent of the link's speed, at which nothing is lost (RFC 2544, section 26.1), within `precision`.
function load.search(name, precision)
    local low, high, percent = 0, 100, 100
    while high - low > precision do
        local sent, arrived = load.measure(percent)
        load.report(name, percent, sent, arrived)
        if arrived >= sent then
            low = percent
        else
            high = percent
        end
        if low == 100 then
            break
        end
        percent = (low + high) / 2
    end
    return low
end

return load
