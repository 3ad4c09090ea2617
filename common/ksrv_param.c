// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_param.c - module parameters with bounds. What is refused shows in the log with its value; at
 * load the kernel adds a line of its own.
 */
#include <linux/kernel.h>
#include <linux/string.h>

#include "ksrv.h"

static int uint_set(const char *text, const struct kernel_param *kp)
{
	struct ksrv_uint *param = kp->arg;
	unsigned int val;

	if (!text || kstrtouint(text, 0, &val) || val < param->min || val > param->max) {
		pr_err("%s=%.*s is not a number from %u to %u\n", kp->name,
		       text ? min_t(int, strcspn(text, "\n"), 32) : 0, text ?: "", param->min,
		       param->max);
		return -EINVAL;
	}
	WRITE_ONCE(param->val, val);
	return 0;
}

static int uint_get(char *buffer, const struct kernel_param *kp)
{
	const struct ksrv_uint *param = kp->arg;

	return sprintf(buffer, "%u\n", READ_ONCE(param->val));
}

const struct kernel_param_ops ksrv_uint_ops = {
	.set = uint_set,
	.get = uint_get,
};
