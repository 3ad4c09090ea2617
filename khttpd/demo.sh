#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# khttpd's chapter of "make demo"; see vm/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$2
# shellcheck source=vm/chapter.sh
. vm/chapter.sh

port() {
	echo 8081
}

# A page, as a browser on this machine gets it.
visit() {
	local url=http://127.0.0.1:$1/ page
	rm -f "$out/page"
	until page=$(curl -si --max-time 20 "$url"); do sleep 0.2; done
	printf '%s, asked for here:\n%s\n' "$url" "$page" >"$out/page.new"
	mv "$out/page.new" "$out/page" # in one step: the guest waits for it
}

talk() {
	say "khttpd: an HTTP/1.1 responder that lives in the kernel"
	show "insmod $KO_DIR/khttpd.ko"
	dmesg | sed -n 's/^\[[^]]*\] khttpd: /log: khttpd: /p' | tail -n 1
	show "curl -si http://localhost:8081/"
	echo
	say "a page on a port of the machine that this guest runs on, as a browser there gets it"
	for ((try = 0; try < 150; try++)); do
		[[ ! -s $out/page ]] || break
		sleep 0.2
	done
	show "cat $out/page"
	say "a request that could be read in two ways is refused, and its connection closed"
	show "printf 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n' | nc localhost 8081"
	say "ten thousand requests, each on a connection of its own, then on 50 that are kept"
	show "userspace/htstress -n 10000 -c 50 http://localhost:8081/ | sed -n '2,7p'"
	show "userspace/htstress -n 10000 -c 50 -k http://localhost:8081/ | sed -n '2,7p'"
	say "what the server counted"
	show "cat /proc/net/stat/khttpd"
	say "unloaded under load"
	userspace/htstress --timeout 1 -d 60 -c 50 -k http://localhost:8081/ >/dev/null 2>&1 &
	sleep 1
	show "time rmmod khttpd"
	wait || true
	echo "To look at it in a browser: make shell, then http://localhost:8081/ on this machine."
}

measure() {
	say "khttpd beside nginx: $(build/nginx/usr/sbin/nginx -v 2>&1 | sed 's/.*: //'), one worker, no access log, 'return 200'"
	OUT_DIR=$out QUICK=1 SERVERS="nginx;khttpd fastpath=1" python3 tests/bench/http.py 2>&1 | sed -n 's/^  /    /p'
}

draw() {
	gnuplot -e "csv='$out/http.csv'; caption=$(plots/caption "$out/http.caption"); out='$out/http.png'" plots/http.gp \
		2> >(grep -v 'Skipping data file' >&2) # of the servers that were not run
	say "requests a second of instruction time (1 ns = 1 instruction, whole machine, client included)"
	awk -F, '
		NR > 1 { rate[$1 "," $2, $3] = $4; if (!seen[$1 "," $2]++) order[++n] = $1 "," $2 }
		END {
			printf "%-18s %12s %10s %10s %24s\n", "requests", "connections", "nginx", "khttpd", "ratio, in instructions"
			for (i = 1; i <= n; i++) {
				split(order[i], key, ",")
				printf "%-18s %12d %10.0f %10.0f %24.2f\n", key[1], key[2], rate[order[i], "nginx"],
					rate[order[i], "khttpd fastpath=1"], rate[order[i], "khttpd fastpath=1"] / rate[order[i], "nginx"]
			}
		}' "$out/http.csv"
	echo "    That is fewer instructions for the same work; no hardware was measured."
	echo "    Picture: $out/http.png"
}

"$1" "${@:3}"
