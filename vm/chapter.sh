# SPDX-License-Identifier: GPL-2.0-only OR MIT
# shellcheck shell=bash
#
# vm/chapter.sh - what the modules' chapters of "make demo" share; see vm/demo.

say() {
	echo "--- $*"
}

# show COMMAND: prints a command line as a person would have typed it, then runs it.
show() {
	echo "\$ $1"
	bash -c "$1"
}
