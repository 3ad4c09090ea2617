# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# "make help" lists what there is. A module is a folder with a Kbuild of its own; none is listed here.

SHELL := /bin/bash

# Which kernel to build for: KERNEL= one of "vm/kernel list"; else KDIR=, any kernel's headers, by
# default those of the kernel that runs. Objects go to a folder per kernel, not among the sources.
ifdef KERNEL
  kdir = $(shell vm/kernel show $(KERNEL) 2>/dev/null | sed -n 's/^headers=//p')
  out := build/$(KERNEL)
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

module_dirs := $(patsubst %/Kbuild,%,$(wildcard */Kbuild))
module_src := Kbuild $(wildcard common/*) $(foreach d,$(module_dirs),$(d)/Kbuild $(wildcard $(d)/*.[ch]))
hooks_src := $(module_src) $(wildcard tests/modules/*/*)
programs := $(patsubst %.c,%,$(wildcard userspace/*.c))

.PHONY: all modules hooks userspace help
all: modules userspace

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- modules ---------------------------------------------------------------------------------

modules: $(out)/.built ## build the modules (KERNEL=6.1 for a kernel of vm/kernel, KDIR=headers for any)

hooks: $(out)+hooks/.built ## build them with the test hooks, and the tests' own modules

# kbuild DIR,FILES,FLAGS: lays links to FILES under DIR, builds there, and puts the modules at DIR's top.
define kbuild
	@[[ -n "$(kdir)" && -e "$(kdir)/Makefile" ]] || { \
		if [[ -n "$(KERNEL)" ]]; then echo "make: no headers of kernel $(KERNEL): run 'vm/kernel get $(KERNEL)'"; \
		else echo "make: no kernel headers at $(kdir): install linux-headers-$$(uname -r), or name others by KDIR=, or KERNEL=6.1 after 'vm/kernel get 6.1'"; fi >&2; exit 1; }
	@mkdir -p $(1)
	@find $(1) -xtype l -delete
	@for f in $(2); do mkdir -p $(1)/$$(dirname $${f#tests/modules/}); ln -sfn $(CURDIR)/$$f $(1)/$${f#tests/modules/}; done
	@$(MAKE) -s -C $(kdir) M=$(CURDIR)/$(1) W=$(W) $(3) modules 2> >(grep -v 'Skipping BTF generation' >&2)
	@cd $(1) && ln -sf */*.ko .
	@touch $@
endef

$(out)/.built: $(module_src)
	$(call kbuild,$(out),$(module_src))

$(out)+hooks/.built: $(hooks_src)
	$(call kbuild,$(out)+hooks,$(hooks_src),KSRV_TEST_HOOKS=y)

# --- programs --------------------------------------------------------------------------------

userspace: ## build the load generators and the baseline server
	@$(MAKE) -s -C userspace
