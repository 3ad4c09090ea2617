#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# tcpprobe's chapter of "make demo"; see vm/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$2
# shellcheck source=vm/chapter.sh
. vm/chapter.sh

# Two namespaces on a link of 20 ms that loses three packets in a thousand.
link() {
	local ns
	for ns in near far; do
		ip netns add $ns
		ip -n $ns link set lo up
	done
	ip link add n0 netns near type veth peer name f0 netns far
	ip -n near addr add 10.0.0.1/24 dev n0
	ip -n far addr add 10.0.0.2/24 dev f0
	ip -n near link set n0 gso_max_segs 1 up
	ip -n far link set f0 up
	show "ip netns exec near tc qdisc add dev n0 root netem delay 10ms loss 0.3% rate 20mbit limit 100"
	show "ip netns exec far tc qdisc add dev f0 root netem delay 10ms"
}

talk() {
	local reader
	say "tcpprobe: two bulk flows, cubic and bbr, over a lossy 20 ms link, traced"
	modprobe tcp_bbr 2>/dev/null || true
	link
	ip netns exec far iperf3 -s -p 5201 >/dev/null &
	ip netns exec far iperf3 -s -p 5202 >/dev/null &
	show "insmod $KO_DIR/tcpprobe.ko bufsize=65536"
	echo "\$ userspace/read_data.py &"
	userspace/read_data.py -o /dev/shm/tcpprobe >/dev/shm/summary &
	reader=$!
	until grep -q "armed missed" /proc/net/stat/tcpprobe_plus; do sleep 0.1; done
	echo "\$ ip netns exec near iperf3 -c 10.0.0.2 -p 5201 -t 12 -C cubic"
	echo "\$ ip netns exec near iperf3 -c 10.0.0.2 -p 5202 -t 12 -C bbr"
	ip netns exec near iperf3 -c 10.0.0.2 -p 5201 -t 12 -C cubic >/dev/null &
	ip netns exec near iperf3 -c 10.0.0.2 -p 5202 -t 12 -C bbr >/dev/null &
	wait $! || true
	sleep 2
	show "head -n 3 /dev/shm/tcpprobe/tcpprobe-0001.log"
	say "Ctrl-C: every flow in a CSV file of its own, and a summary"
	kill -INT $reader
	wait $reader
	cat /dev/shm/summary
	show "grep Samples /dev/shm/tcpprobe/statistics.txt"
	cp /dev/shm/tcpprobe/tcpprobe-0001.log "$out/tcpprobe.log"
	echo "20 ms, 3 packets in a thousand lost; Linux $(uname -r), $QEMU; $HOST_CPU; commit $COMMIT; $BENCH_COMMAND." >"$out/tcpprobe.caption"
	pkill iperf3 || true
	rmmod tcpprobe
	ip netns del near
	ip netns del far
}

draw() {
	rm -rf "$out/tcpprobe"
	userspace/read_data.py --follow "$out/tcpprobe.log" -o "$out/tcpprobe" --plot --plot-flows 2 \
		--caption "port 5201: cubic; port 5202: bbr; $(cat "$out/tcpprobe.caption" 2>/dev/null)" >/dev/null
	echo "    Pictures: $out/tcpprobe/cwnd.png, rtt.png, flight.png, pacing.png"
}

case $1 in
talk) talk ;;
draw) draw ;;
measure) ;; # "make bench" has its figures
esac
