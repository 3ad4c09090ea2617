// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_hooks.c - in builds for the tests only: makes rare things happen every so often. Each
 * parameter N makes every Nth call see the rare case; 0 is off. hook_io_waits is a time, and
 * hook_shared_bytes only tells what cannot be seen from outside.
 */
#ifdef TEST_HOOKS
#include <linux/atomic.h>
#include <linux/jiffies.h>
#include <linux/sched.h>

#include "ksrv_impl.h"

KSRV_PARAM_UINT(hook_owned, 0, 0, 1 << 20, 0644, "every Nth data_ready sees the socket owned");
KSRV_PARAM_UINT(hook_send_fails, 0, 0, 1 << 20, 0644, "every Nth send finds no memory");
KSRV_PARAM_UINT(hook_room_gone, 0, 0, 1 << 20, 0644,
		"every Nth time that room was found it is gone");
KSRV_PARAM_UINT(hook_accept_fails, 0, 0, 1 << 20, 0644, "every Nth accept finds no memory");
KSRV_PARAM_UINT(hook_unreadable, 0, 0, 1 << 20, 0644,
		"every Nth piece of input lies in a device's memory");

KSRV_PARAM_UINT(hook_io_waits, 0, 0, 10000, 0644,
		"ms that an I/O worker waits before it comes to what is ready");

static atomic_long_t shared;

static int get_shared(char *buf, const struct kernel_param *param)
{
	return sysfs_emit(buf, "%ld\n", atomic_long_read(&shared));
}

static const struct kernel_param_ops shared_ops = { .get = get_shared };
module_param_cb(hook_shared_bytes, &shared_ops, NULL, 0444);
MODULE_PARM_DESC(hook_shared_bytes, "bytes that were sent as the pages they came in");

void ksrv_hook_shared(size_t bytes)
{
	atomic_long_add(bytes, &shared);
}

void ksrv_hook_io(void)
{
	unsigned long until = jiffies + msecs_to_jiffies(ksrv_uint(&hook_io_waits));

	while (ksrv_uint(&hook_io_waits) && time_before(jiffies, until))
		schedule_timeout_idle(1);
}

static bool due(const struct ksrv_uint *param, atomic_t *calls)
{
	unsigned int every = ksrv_uint(param);

	return every && atomic_inc_return(calls) % every == 0;
}

bool ksrv_hook_owned(void)
{
	static atomic_t calls;

	return due(&hook_owned, &calls);
}

/* Where core TCP finds no memory it also has the queue hold less from then on. */
bool ksrv_hook_send_fails(struct sock *sk)
{
	static atomic_t calls;

	if (!due(&hook_send_fails, &calls))
		return false;
	sk_stream_moderate_sndbuf(sk);
	return true;
}

bool ksrv_hook_room_gone(void)
{
	static atomic_t calls;

	return due(&hook_room_gone, &calls);
}

bool ksrv_hook_accept_fails(void)
{
	static atomic_t calls;

	return due(&hook_accept_fails, &calls);
}

bool ksrv_hook_unreadable(void)
{
	static atomic_t calls;

	return due(&hook_unreadable, &calls);
}
#endif
