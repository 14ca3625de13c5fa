#!/usr/bin/env bash
# What `make demo` shows: a client, the appliance and two nginx servers, each in a network namespace of its own, and a
# hundred requests that can get from one to the others through sluice alone. Removes all that it made.
#
#   client 10.0.0.100 -- dt0 [sluiced] dt1 -- switch beside rs1 -- rs1 192.168.1.1, rs2 192.168.1.2
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

readonly vip=10.0.0.1 requests=100
readonly bin=target/release
readonly client=sluice-demo-client appliance=sluice-demo-appliance rs1=sluice-demo-rs1 rs2=sluice-demo-rs2
readonly namespaces=("$client" "$appliance" "$rs1" "$rs2")
# demo.toml's memory, in pages of 2 MB.
readonly hugepages=/sys/kernel/mm/hugepages/hugepages-2048kB hugepages_wanted=64

work=$(mktemp -d /tmp/sluice-demo.XXXXXX)
hugepages_before='' summary=''
pids=()

fail() {
    echo "demo: $*" >&2
    exit 1
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM HUP
    set +e
    if ((status != 0 && status < 128)) && [[ -s $work/sluiced.log ]]; then
        echo '--- what sluiced said last:' >&2
        tail -n 20 "$work/sluiced.log" >&2
    fi
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do
        # Where the processor is scarce the kernel takes its time to remove taps.
        for _ in {1..3500}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.02
        done
        kill -KILL "$pid" 2>/dev/null
    done
    wait
    for namespace in "${made[@]}"; do ip netns del "$namespace"; done
    [[ -z $hugepages_before ]] || echo "$hugepages_before" >"$hugepages/nr_hugepages"
    rm -rf "$work"
    ((status != 0)) || echo "$summary"
    exit "$status"
}
made=()
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Asks for a command's success for a minute.
await() {
    local what=$1
    shift
    for _ in {1..3000}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.02
    done
    fail "$what did not happen in a minute"
}

inside() {
    ip netns exec "$@"
}

# For what runs in the background: $! is the program itself.
exec_inside() {
    exec ip netns exec "$@"
}

sluice() {
    "$bin/sluice" --socket "$work/rpc.sock" "$@"
}

make_namespaces() {
    local namespace
    for namespace in "${namespaces[@]}"; do
        if ip netns list | grep -qw -- "$namespace"; then
            # Of a demo that was killed, unless somebody lives there.
            [[ -z $(ip netns pids "$namespace") ]] || fail "another demo is running (in namespace $namespace)"
            ip netns del "$namespace"
        fi
        ip netns add "$namespace" || fail 'network namespaces cannot be made here; run as root, outside a container'
        made+=("$namespace")
        ip -n "$namespace" link set lo up
        # IPv6's own chatter would only be counted and dropped.
        inside "$namespace" sh -c 'for key in /proc/sys/net/ipv6/conf/*/disable_ipv6; do ! [ -e "$key" ] || echo 1 >"$key"; done'
    done
    # Nothing can go round us.
    inside "$appliance" sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'
}

# Hugepages if the machine gives them; sluiced does without if it finds too few.
reserve_hugepages() {
    [[ -w $hugepages/nr_hugepages ]] || return 0
    local have free
    have=$(<"$hugepages/nr_hugepages")
    free=$(<"$hugepages/free_hugepages")
    if ((free < hugepages_wanted)); then
        hugepages_before=$have
        # The kernel reserves as many as it can.
        echo $((have + hugepages_wanted - free)) >"$hugepages/nr_hugepages"
    fi
}

start_appliance() {
    # The example as it is, but with a socket of its own, so that the demo runs beside an appliance in earnest.
    { cat configs/demo.toml && printf '\n[rpc]\nsocket = "%s/rpc.sock"\n' "$work"; } >"$work/demo.toml"
    exec_inside "$appliance" "$bin/sluiced" --config "$work/demo.toml" >"$work/sluiced.log" 2>&1 &
    pids+=($!)
    await 'an answer of sluiced' answers_or_has_ended "$!"
    kill -0 "$!" || fail 'sluiced does not run'
}

answers_or_has_ended() {
    ! kill -0 "$1" || sluice version
}

# Plugs a port in: what it sends comes out of `wire` there, and the other way round. DPDK looks after the tap by its name,
# so the tap itself stays, and a macvlan in pass-through mode goes. Both ends of a tap begin with the same MAC; a neighbour
# has one of its own.
plug() {
    local tap=$1 into=$2 mac=$3
    ip -n "$appliance" link add link "$tap" name wire netns "$into" type macvlan mode passthru
    ip -n "$into" link set wire address "$mac"
}

wire() {
    plug dt0 "$client" 02:00:00:00:00:64
    ip -n "$client" addr add 10.0.0.100/24 dev wire
    ip -n "$client" link set wire up

    # The switch of the servers' network is a bridge beside rs1.
    ip -n "$rs1" link add lan type bridge
    plug dt1 "$rs1" 02:00:00:00:00:fe
    ip -n "$rs1" link add to-rs2 type veth peer name lan netns "$rs2"
    ip -n "$rs1" link set wire master lan up
    ip -n "$rs1" link set to-rs2 master lan up
    local n=0 server
    for server in "$rs1" "$rs2"; do
        n=$((n + 1))
        ip -n "$server" addr add "192.168.1.$n/24" dev lan
        ip -n "$server" link set lan up
        ip -n "$server" route add default via 192.168.1.254
    done

    # The appliance's addresses belong to the kernel, which answers ARP and ping for them.
    ip -n "$appliance" addr add "$vip/24" dev ex0
    ip -n "$appliance" addr add 192.168.1.254/24 dev ex1
}

start_servers() {
    local server
    for server in rs1 rs2; do
        local home=$work/$server
        mkdir -p "$home"
        cat >"$home/nginx.conf" <<NGINX
daemon off;
worker_processes 1;
pid $home/nginx.pid;
error_log $home/error.log;
events {}
http {
    access_log $home/access.log;
    client_body_temp_path $home/body;
    proxy_temp_path $home/proxy;
    fastcgi_temp_path $home/fastcgi;
    uwsgi_temp_path $home/uwsgi;
    scgi_temp_path $home/scgi;
    server {
        listen 80;
        location = / { return 200 "$server\n"; }
        location = /up { access_log off; return 204; }
    }
}
NGINX
        exec_inside "sluice-demo-$server" nginx -c "$home/nginx.conf" -e "$home/error.log" &
        pids+=($!)
    done
    await 'nginx on rs1' inside "$rs1" curl -sf --max-time 1 http://192.168.1.1/up
    await 'nginx on rs2' inside "$rs2" curl -sf --max-time 1 http://192.168.1.2/up
}

add_service() {
    echo
    sluice service add tcp "$vip:80" --scheduler rr
    sluice server add tcp "$vip:80" 192.168.1.1:80 --method nat
    sluice server add tcp "$vip:80" 192.168.1.2:80 --method nat
}

# One connection for each request; a line "CODE SECONDS" for each.
send_requests() {
    local n
    for ((n = 0; n < requests; n++)); do
        inside "$client" curl -s -o /dev/null --max-time 5 -w '%{http_code} %{time_total}\n' "http://$vip/" || true
    done >"$work/requests"
}

# Requests that a server wrote down.
logged_by() {
    wc -l <"$work/$1/access.log"
}

# Connections that sluice counted to a server.
counted_to() {
    sluice -o json service list |
        jq --arg address "$1:80" '.services[0].real_servers[] | select(.address == $address) | .stats.conns'
}

counters_agree() {
    [[ $(counted_to 192.168.1.1) == "$(logged_by rs1)" && $(counted_to 192.168.1.2) == "$(logged_by rs2)" ]]
}

show_latency() {
    awk '{ print $2 * 1000 }' "$work/requests" | sort -n | awk '
        { ms[NR] = $1 }
        function at(share) { rank = int(NR * share + 0.999999); return ms[rank < 1 ? 1 : rank] }
        END { printf "latency: min %.2f ms, p50 %.2f ms, p99 %.2f ms, max %.2f ms\n", ms[1], at(0.5), at(0.99), ms[NR] }'
}

report() {
    local answered from_rs1 from_rs2
    answered=$(grep -c '^200 ' "$work/requests" || true)
    from_rs1=$(logged_by rs1)
    from_rs2=$(logged_by rs2)
    # Workers publish, and control reads, a little later.
    await "the appliance's counters equal to the access logs ($from_rs1, $from_rs2)" counters_agree
    echo
    echo "rs1: $from_rs1 requests in its access log, $(counted_to 192.168.1.1) connections counted by sluice"
    echo "rs2: $from_rs2 requests in its access log, $(counted_to 192.168.1.2) connections counted by sluice"
    show_latency
    echo
    sluice status
    echo
    summary="demo: $requests requests, $answered answered (rs1 $from_rs1, rs2 $from_rs2)"
    if ((answered != requests || from_rs1 != requests / 2 || from_rs2 != requests / 2)); then
        fail "not as it should be: $summary"
    fi
}

# As an init system ends it.
stop_appliance() {
    local pid=${pids[0]}
    kill -TERM "$pid"
    wait "$pid" || fail "sluiced ended with $? after SIGTERM"
    [[ ! -e $work/rpc.sock ]] || fail 'sluiced left its socket behind'
}

echo "demo: client 10.0.0.100 -> sluice, VIP $vip:80 -> nginx on rs1 192.168.1.1 and rs2 192.168.1.2"
make_namespaces
reserve_hugepages
start_appliance
wire
start_servers
add_service
send_requests
report
stop_appliance
