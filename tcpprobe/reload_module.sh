#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# reload_module.sh PORT [PARAMETER=VALUE]... - builds tcpprobe if its sources are newer, and loads it anew into
# the kernel that runs here, for connections with PORT at either end (0: all).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
	echo "reload_module.sh: $*" >&2
	exit 2
}

[[ $# -ge 1 ]] || die "usage: bash tcpprobe/reload_module.sh PORT [PARAMETER=VALUE]... (PORT 0: all)"
[[ $1 =~ ^[0-9]{1,5}$ && $((10#$1)) -le 65535 ]] || die "PORT is a number from 0 to 65535, not '$1'"
port=$((10#$1))
shift
for setting in "$@"; do
	[[ $setting =~ ^[a-z]+=[0-9]+$ ]] || die "a parameter is NAME=NUMBER, not '$setting'"
done
[[ $(id -u) -eq 0 ]] || die "loading a module takes root"
if [[ -n ${KO_DIR:-} ]]; then
	module=$KO_DIR/tcpprobe.ko # a guest of vm/run: built by its host
else
	make -s modules
	module=build/$(uname -r)/tcpprobe.ko
fi
[[ ! -e /sys/module/tcpprobe ]] || rmmod tcpprobe
insmod "$module" port="$port" "$@"
echo "tcpprobe watches $([[ $port -eq 0 ]] && echo "all ports" || echo "port $port"); now: python3 userspace/read_data.py"
