#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# kecho's chapter of "make demo"; see vm/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$2
# shellcheck source=vm/chapter.sh
. vm/chapter.sh

talk() {
	say "kecho: an echo server that lives in the kernel"
	show "insmod $KO_DIR/kecho.ko"
	dmesg | sed -n 's/^\[[^]]*\] kecho: /log: kecho: /p' | tail -n 1
	say "a line through telnet, as a person would type it"
	echo "\$ telnet localhost 12345"
	(sleep 1 && echo "hello from user space" && sleep 1) | telnet localhost 12345 2>&1 || true
	say "ten million random bytes through nc, half-closed at the end; cmp finds no difference"
	head -c 10000000 /dev/urandom >/dev/shm/sent
	nc -N localhost 12345 </dev/shm/sent >/dev/shm/received
	show "cmp /dev/shm/sent /dev/shm/received"
	say "a thousand clients at a time, ten messages each, every byte verified"
	show "userspace/bench -c 1000 -n 10"
	say "what the server counted"
	show "cat /proc/net/stat/kecho"
	say "unloaded with 200 busy clients"
	userspace/bench -c 200 -n 1000000 >/dev/null 2>&1 &
	sleep 2
	show "time rmmod kecho"
	wait || true
}

measure() {
	say "kecho beside user-echo-server, an epoll server in user space: 64-byte messages"
	mkdir -p /dev/shm/tools
	cp userspace/bench userspace/user-echo-server /dev/shm/tools/
	cd /dev/shm/tools
	insmod "$KO_DIR/kecho.ko" backlog=1024
	./user-echo-server -p 12346 &
	sleep 0.2
	for port in 12345 12346; do
		./bench -c 32 -n 50 127.0.0.1 $port >/dev/null # warms both up
	done
	echo "connections,server,round_trips_per_second" >"$out/kecho-ratio.csv"
	for connections in 1 32 256; do
		for server in kecho:12345 user-echo-server:12346; do
			./bench -c $connections -n $((20000 / connections)) --lean --csv 127.0.0.1 "${server#*:}" >result
			echo "$connections,${server%:*},$(sed -n '2s/^\([^,]*,\)\{7\}\([^,]*\),.*/\2/p' result)" \
				>>"$out/kecho-ratio.csv"
			echo "    $connections connections, ${server%:*}: done"
		done
	done
	for server in kecho:12345 user-echo-server:12346; do
		./bench -c 32 -n 600 --hist "$out/${server%:*}-latency.csv" 127.0.0.1 "${server#*:}" >/dev/null
		echo "    latency at 32 connections, ${server%:*}: done"
	done
	kill %1
	rmmod kecho
	echo "Linux $(uname -r), $(nproc) CPU, $QEMU, 1 ns = 1 instruction; $HOST_CPU; commit $COMMIT; $BENCH_COMMAND." >"$out/kecho.caption"
}

draw() {
	gnuplot -e "out='$out/kecho-latency.png'; caption=$(plots/caption "$out/kecho.caption"); first='$out/kecho-latency.csv'; first_name='kecho (in the kernel)'; \
		second='$out/user-echo-server-latency.csv'; second_name='user-echo-server (epoll)'" plots/latency.gp
	say "64-byte round trips a second of instruction time (1 ns = 1 instruction, whole machine, client included)"
	awk -F, '
		NR > 1 { rate[$1, $2] = $3; if (!seen[$1]++) order[++n] = $1 }
		END {
			printf "%12s %10s %18s %28s\n", "connections", "kecho", "user-echo-server", "ratio, in instructions"
			for (i = 1; i <= n; i++) {
				c = order[i]
				printf "%12d %10.0f %18.0f %28.2f\n", c, rate[c, "kecho"], rate[c, "user-echo-server"],
					rate[c, "kecho"] / rate[c, "user-echo-server"]
			}
		}' "$out/kecho-ratio.csv"
	echo "    That is fewer instructions for the same work; no hardware was measured."
	echo "    Picture: $out/kecho-latency.png"
}

"$1"
