// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kfault - does at load what no module should, so that the tests can see vm/run notice it.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/smp.h>
#include <linux/string.h>

static char *how = "";
module_param(how, charp, 0444);
MODULE_PARM_DESC(how, "warn, oops, spin or hang");

static void hang(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static void spin(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static int __init kfault_init(void)
{
	if (!strcmp(how, "warn")) {
		WARN(1, "a warning on request\n");
		return 0;
	}
	if (!strcmp(how, "oops"))
		WRITE_ONCE(*(int *)8, 0);
	if (!strcmp(how, "spin"))
		spin();
	if (!strcmp(how, "hang"))
		on_each_cpu(hang, NULL, 1);
	return -EINVAL;
}

static void __exit kfault_exit(void)
{
}

module_init(kfault_init);
module_exit(kfault_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Misbehaves on request, for the tests of vm/run");
