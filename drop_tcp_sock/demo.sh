#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# drop_tcp_sock's chapter of "make demo"; see vm/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=vm/chapter.sh
. vm/chapter.sh

talk() {
	say "drop_tcp_sock: sockets that wait for nothing, dropped by a pipe"
	insmod "$KO_DIR/kecho.ko"
	show "insmod $KO_DIR/drop_tcp_sock.ko"
	say "2,000 connections to kecho, closed by the client, leave as many sockets in TIME-WAIT"
	userspace/bench -c 50 -n 40 --reconnect >/dev/null
	show "netstat -nW | grep TIME_WAIT | grep -c :12345"
	show "netstat -nW | grep TIME_WAIT | grep :12345 | awk '{print \$4\" \"\$5}' | tee /proc/net/drop_tcp_sock | tail -n 2"
	show "netstat -nW | grep TIME_WAIT | grep -c :12345 || true"
	show "grep -v ' 0\$' /proc/net/drop_tcp_sock"
	say "the same by the command tcpdrop, which says what became of each line"
	userspace/bench -c 2 -n 1 --reconnect >/dev/null
	show "userspace/tcpdrop -l -s time-wait | userspace/tcpdrop -v -"
	show "userspace/tcpdrop -v '*:12345' '*:*' || true"
	rmmod drop_tcp_sock kecho
}

case $1 in
talk) talk ;;
measure | draw) ;; # "make bench" has its figures
esac
