/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * compat.h - what differs between the kernels that the modules build for, 5.10 to 7.x. No other
 * file of the project looks at the kernel's version. Each entry says what changed and when, as
 * far as Debian's kernels show it: a stable update may carry a younger change back.
 */
#ifndef KNET_COMPAT_H
#define KNET_COMPAT_H

#include <linux/version.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(8, 0, 0)
#error "these modules are for Linux 5.10 to 7.x: no other has been tried"
#endif

/* 7.x warns about a workqueue that is marked neither per CPU nor unbound. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define COMPAT_WQ_PERCPU WQ_PERCPU
#else
#define COMPAT_WQ_PERCPU 0
#endif

/*
 * A socket that softirqs send on must take page fragments from itself, not from the task that
 * happens to be interrupted. Up to 6.0 sk_allocation alone decides; later there is a flag too.
 */
static inline void compat_sk_no_task_frag(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
	sk->sk_use_task_frag = false;
#endif
}

/**
 * compat_sk_hold_net() - make a kernel socket hold its network namespace, as a user's does
 * @sk: a socket with sk_net_refcnt == 0 whose namespace the caller holds; owned by the caller
 *
 * Without it tcp_close() stops the socket's timers, so that a lost FIN or last segment is never
 * sent again. sk_net_refcnt_upgrade() came with 6.14 and was carried back to 6.12; the namespace
 * trackers came with 5.17.
 */
static inline void compat_sk_hold_net(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	sk_net_refcnt_upgrade(sk);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
	sk->sk_net_refcnt = 1;
	get_net_track(sock_net(sk), &sk->ns_tracker, GFP_KERNEL);
	sock_inuse_add(sock_net(sk), 1);
#else
	sk->sk_net_refcnt = 1;
	get_net(sock_net(sk));
	this_cpu_add(*sock_net(sk)->core.sock_inuse, 1);
#endif
}

#endif /* KNET_COMPAT_H */
