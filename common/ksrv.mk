# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# ksrv.mk - included by the Kbuild of each module that serves TCP, which then adds $(ksrv-y) to
# its objects. Each module compiles a copy of its own, in its own folder: an object that stood
# in two modules would carry both their names.

ccflags-y += -I$(src)/../common -include $(src)/../common/pr_fmt.h
# What is on a stack is filled, where the kernel's own options would clear it: a byte that leaves unwritten is then told by it.
ccflags-$(TEST_HOOKS) += -DTEST_HOOKS $(call cc-option,-ftrivial-auto-var-init=pattern)

ksrv-y := $(patsubst $(src)/../common/%.c,%.o,$(sort $(wildcard $(src)/../common/ksrv_*.c)))

$(obj)/%.o: $(src)/../common/%.c FORCE
	$(call if_changed_rule,cc_o_c)
	$(call cmd,force_checksrc)
