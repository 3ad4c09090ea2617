# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# "make help" lists what there is. A module is a folder with a Kbuild of its own; none is listed here.

SHELL := /bin/bash

# Which kernel to build for: KDIR= on the command line, any kernel's headers; else KERNEL=, one of
# "vm/kernel list"; else the kernel that runs. Objects go to a folder per kernel, not among the sources.
ifeq ($(origin KDIR),command line)
  override undefine KERNEL
endif
ifneq ($(word 2,$(CURDIR))$(word 2,$(KNET_CACHE)),)
  $(error neither make nor kbuild takes a path with a space: '$(CURDIR)', KNET_CACHE '$(KNET_CACHE)')
endif
ifdef KERNEL
  shown := $(shell vm/kernel show $(KERNEL) 2>/dev/null)
  kdir := $(patsubst headers=%,%,$(filter headers=%,$(shown)))
  tools := $(patsubst tools=%,%:,$(filter tools=%,$(shown)))
  debug := $(if $(filter source=%,$(shown)),-g)
  out := build/$(or $(patsubst name=%,%,$(filter name=%,$(shown))),$(KERNEL))
else
  KDIR ?= /lib/modules/$(shell uname -r)/build
  kdir = $(KDIR)
  ifeq ($(origin KDIR),file)
    out := build/$(shell uname -r)
  else
    out := build/kdir$(subst /,_,$(abspath $(KDIR)))
  endif
endif
W ?= 1
# WERROR=1: a warning is an error, with which nothing counts as built. For those who test; a newer compiler may warn of more.
# What was built without it does not count as built with it.
werror := $(if $(WERROR),-Werror)
built := .built$(if $(WERROR),-without-a-warning)
# As many jobs as there are CPUs, unless make was told.
jobs = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

module_dirs := $(patsubst %/Kbuild,%,$(wildcard */Kbuild))
module_src := Kbuild $(wildcard common/*) $(foreach d,$(module_dirs),$(d)/Kbuild $(wildcard $(d)/*.[ch]))
hooks_src := $(module_src) $(wildcard tests/modules/*/* tests/peers/*/*)
programs := $(patsubst %.c,%,$(wildcard userspace/*.c))

# The Python that Debian's pytest belongs to, whatever else is first in PATH.
PYTHON ?= /usr/bin/python3
K := $(or $(KERNEL),6.1)

.PHONY: all modules hooks userspace help setup kernel demo check matrix check-debug check-kcsan faults fuzz soak bench bench-native plot shell load unload lint format clean
all: modules userspace ## build the modules and the programs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- modules ---------------------------------------------------------------------------------

modules: $(out)/$(built) ## build the modules (KERNEL=6.1 for a kernel of vm/kernel, KDIR=headers for any)

hooks: $(out)+hooks/$(built) build/tests/wire ## build them with the test hooks, and the tests' own modules and programs

build/tests/wire: $(wildcard tests/wire/* khttpd/http*) common/pure.h
	@mkdir -p build/tests
	@$(CC) -O2 -g -std=gnu11 -Wall -Wextra -D_GNU_SOURCE -Ikhttpd -Icommon -o $@ $(filter %.c,$^)

# The servers in user space that ours are measured against; only "make bench" needs their libraries.
peers := $(patsubst tests/peers/%.c,build/peers/%,$(wildcard tests/peers/*.c))
.PHONY: peers
peers: userspace $(peers)
build/peers/%: tests/peers/%.c $(wildcard userspace/lib/*.h)
	@mkdir -p $(@D)
	@$(CC) -O2 -g -std=gnu11 -Wall -Wextra -Wshadow -D_GNU_SOURCE -Iuserspace/lib -pthread -o $@ $< userspace/lib/server.o userspace/lib/util.o -luring -lbpf

# Some headers ask for type information in modules, which pahole makes; none of it is needed here.
btf = $(if $(shell command -v pahole),,CONFIG_DEBUG_INFO_BTF_MODULES=)

# kbuild DIR,FILES,FLAGS: lays links to FILES under DIR, builds there, and puts the modules at DIR's top; one make at a time.
# Under WERROR=1 modpost's warnings and kernel-doc's count too: what they were given for is then built anew the next time.
define kbuild
	@[[ -n "$(kdir)" && -e "$(kdir)/Makefile" ]] || { \
		if [[ -n "$(KERNEL)" ]]; then echo "make: no headers of kernel $(KERNEL): run 'vm/kernel get $(KERNEL)'"; \
		else echo "make: no kernel headers at $(kdir): install linux-headers-$$(uname -r), or name others by KDIR=, or KERNEL=6.1 after 'vm/kernel get 6.1'"; fi >&2; exit 1; }
	@mkdir -p $(1)
	@set -e; exec 9>$(1).lock; flock 9; \
	find $(1) -xtype l -delete; \
	for f in $(2); do mkdir -p $(1)/$$(dirname $${f#tests/*/}); ln -sfn $(CURDIR)/$$f $(1)/$${f#tests/*/}; done; \
	for f in $(1)/*/*.ko; do [[ ! -e $$f || -e $$(dirname $$f)/Kbuild ]] || rm -rf $$(dirname $$f); done; \
	PATH=$(tools)$$PATH; \
	{ $(MAKE) -s $(jobs) -C $(kdir) M=$(CURDIR)/$(1) W=$(W) $(btf) KCFLAGS="$(strip $(KCFLAGS) $(debug) $(werror))" $(3) modules 2>&1 >&8 | \
		{ grep -v 'Skipping BTF generation' || true; } | tee $(1)/.said >&2; [[ $${PIPESTATUS[0]} -eq 0 ]]; } 8>&1; \
	[[ -z "$(werror)" ]] || ! grep -i 'warning:' $(1)/.said | grep -qv 'the compiler differs' || \
		{ rm -rf $(1); echo "make: a warning is an error here (WERROR=1)" >&2; exit 1; }; \
	cd $(1); find . -maxdepth 1 -xtype l -delete; ln -sf */*.ko .; echo "$(2)" >.files
endef

# A kernel that is built here may be built anew, by other options, and one that was fetched be fetched anew.
options := $(wildcard $(kdir)/include/generated/autoconf.h $(kdir)/../release $(kdir)/../../../release)

# changed DIR,FILES: what there is to be done for it if those are not the files that DIR was built of: one that has gone makes
# none of the others newer.
built_of = $(shell cat $(1)/.files 2>/dev/null)
changed = $(if $(filter-out $(2),$(built_of))$(filter-out $(built_of),$(2)),FORCE)
.PHONY: FORCE

$(out)/$(built): $(module_src) $(options) $(call changed,$(out),$(module_src))
	$(call kbuild,$(out),$(module_src))
	@touch $(@D)/.built $@

$(out)+hooks/$(built): $(hooks_src) $(options) $(call changed,$(out)+hooks,$(hooks_src))
	$(call kbuild,$(out)+hooks,$(hooks_src),TEST_HOOKS=y)
	@touch $(@D)/.built $@

.PHONY: sparse
sparse: # every file anew, under sparse; part of lint
	@rm -rf $(out)+sparse
	$(call kbuild,$(out)+sparse,$(hooks_src),TEST_HOOKS=y C=1 W=)

# --- programs --------------------------------------------------------------------------------

userspace: ## build tcpdrop, the load generators and the baseline servers
	@$(MAKE) -s -C userspace

# --- in a virtual machine --------------------------------------------------------------------

setup: ## install what building, booting and testing take (root or sudo)
	@vm/setup

.PHONY: kernels
kernels: setup ## fetch or build what all of the kernels take
	@vm/setup kernels

kernel: setup ## fetch KERNEL (6.1), without installing it
	@vm/kernel get $(K)

demo: kernel ## the guided tour: boots a kernel in a VM, walks through the modules, leaves plots in output/
	@KERNEL=$(K) vm/demo

check: kernel ## the tests, in the same VM (TESTS= names some, LOAD=small: fewer repetitions)
	@$(MAKE) -s KERNEL=$(K) WERROR=1 modules hooks userspace
	@KERNEL=$(K) $(PYTHON) -m pytest -c tests/pytest.ini $(TESTS)

# Which kernels "make matrix" runs on: those that Debian ships.
KERNELS ?= 5.10 6.1 6.12 7.x

matrix: kernels ## the tests on every kernel, and a table (KERNELS= names some, TESTS= some tests, SMOKE=1: a few tests a module)
	@tests/matrix $(if $(SMOKE),--smoke) $(KERNELS) -- $(TESTS)

check-debug: kernels ## the tests on a kernel with KASAN, lockdep and kmemleak, built on first use (a quarter of an hour; LEAKS= names the folders kmemleak looks on in)
	@tests/matrix debug -- $(TESTS)

check-kcsan: kernels ## the tests on a kernel that watches for data races
	@tests/matrix kcsan -- $(TESTS)

faults: kernels ## every allocation of a call fails in turn, and a share of those under traffic, on the debug kernel
	@FAULTS=all tests/matrix debug -- -rP tests/vm/faults

# Seconds that each fuzzer goes on, and where chance begins.
TIME ?= 60
SEED ?= 1

fuzz: kernels ## the fuzzers, TIME=60 seconds each from SEED=1, on the debug kernel or KERNEL=
	@FUZZ_SECONDS=$(TIME) SEED=$(SEED) $(PYTHON) -m pytest -c tests/pytest.ini -rP tests/host -k fuzz
	@TIME=$(TIME) SEED=$(SEED) tests/matrix $(or $(KERNEL),debug) -- -rP tests/vm/fuzz

soak: kernel ## all modules under mixed traffic for TIME=60 seconds: memory has to stay flat; a plot in output/soak/
	@$(MAKE) -s KERNEL=$(K) modules userspace
	@mkdir -p output/soak
	@mapfile -t origins < <(tests/bench/run --origin); \
		vm/run -k $(K) -c turns -t $$(($(TIME) + 900)) -o output/soak -- env "$${origins[@]}" BENCH_COMMAND="make soak TIME=$(TIME)" \
			sh -c '$(PYTHON) tests/soak/soak.py $(TIME) "$$OUT_DIR"'; \
		status=$$?; plots/draw || status=1; exit $$status

bench: kernel ## the modules beside their rivals, in instruction time, then real time (BENCH= names some of tests/bench, QUICK=1: rougher)
	@vm/setup bench
	@$(MAKE) -s KERNEL=$(K) modules hooks userspace peers
	@mkdir -p output/bench
	@KERNEL=$(K) QUICK=$(QUICK) tests/bench/run $(BENCH); status=$$?; plots/draw || status=1; exit $$status

bench-native: ## the same on this machine and its own kernel, in real time, to output/native/ (root; loads the modules)
	@vm/setup bench
	@$(MAKE) -s modules hooks userspace peers
	@QUICK=$(QUICK) KO_DIR=$(CURDIR)/$(out) tests/bench/run --native $(BENCH)

plot: ## draw what "make bench" and "make demo" left in output/
	@plots/draw

shell: kernel ## an interactive VM with the modules loaded; ports 12345 and 8081 are forwarded to it
	@$(MAKE) -s KERNEL=$(K) modules userspace
	@vm/run -k $(K) -i -t 1000000 -p 12345:12345 -p 8081:8081 -- vm/shell

# --- on this machine -------------------------------------------------------------------------

sudo := $(if $(filter-out 0,$(shell id -u)),sudo)

load: modules ## load the modules into the kernel that runs here (root)
	@echo "Loading into the running kernel, $$(uname -r): a fault there takes this machine down ('make shell' uses a VM)." >&2
	@for ko in $(out)/*.ko; do $(sudo) insmod $$ko || exit 1; echo "loaded $$(basename $$ko .ko)"; done

unload: ## unload them again (root)
	@for dir in $(module_dirs); do [[ ! -e /sys/module/$$dir ]] || $(sudo) rmmod $$dir || exit 1; done

# --- upkeep ----------------------------------------------------------------------------------

lint: ## sparse, checkpatch, cppcheck, clang-format, shellcheck, pyflakes
	@vm/setup build vm lint
	@vm/kernel get $(K)
	@KERNEL=$(K) tests/lint

format: ## put the C sources into the project's format
	@clang-format -i $$(git ls-files '*.c' '*.h')

clean: ## remove what was built; .cache/ (kernels) and output/ stay
	@rm -rf build
	@$(MAKE) -s -C userspace clean
