// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kreclaim - locks a TCP socket of the kernel's where memory is being reclaimed, as NFS or a
 * network block device may. Lockdep then takes whoever allocates under such a socket's lock, and
 * may wait for memory, for somebody who can deadlock. Nothing else comes of it.
 */
#include <linux/module.h>
#include <linux/net.h>
#include <linux/sched/mm.h>
#include <net/sock.h>

static int __init kreclaim_init(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct socket *sock;
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		err = sock_create_kern(&init_net, families[i], SOCK_STREAM, IPPROTO_TCP, &sock);
		if (err)
			return err;
		fs_reclaim_acquire(GFP_KERNEL);
		lock_sock(sock->sk);
		release_sock(sock->sk);
		fs_reclaim_release(GFP_KERNEL);
		sock_release(sock);
	}
	return 0;
}

static void __exit kreclaim_exit(void)
{
}

module_init(kreclaim_init);
module_exit(kreclaim_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Has lockdep know that reclaim may lock a socket");
