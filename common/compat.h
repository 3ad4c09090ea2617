/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * compat.h - what differs between the kernels that the modules build for, 5.10 to 7.x. No other
 * file of the project looks at the kernel's version. Each entry says what changed and when, as
 * far as Debian's kernels show it: a stable update may carry a younger change back.
 */
#ifndef KNET_COMPAT_H
#define KNET_COMPAT_H

#include <linux/version.h>

/* Before all else: the errors that another kernel's headers give say less. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(8, 0, 0)
#include <generated/utsrelease.h>
#pragma message "Linux " UTS_RELEASE
#error "these modules are for Linux 5.10 to 7.x: no other has been tried"
#endif

#include <linux/bvec.h>
#include <linux/proc_fs.h>
#include <linux/sysctl.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

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
 * @sk: a socket with sk_net_refcnt == 0 whose namespace the caller holds; better not locked, as
 *	the namespace's tracker may allocate, and wait for that
 *
 * Without it tcp_close() stops the socket's timers, so that a lost FIN or last segment is never
 * sent again. sk_net_refcnt_upgrade() came with 6.14 and was carried back to 6.12; the namespace
 * trackers came with 5.17, from 6.2 on those of kernel sockets that do not hold it, too.
 */
static inline void compat_sk_hold_net(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	sk_net_refcnt_upgrade(sk);
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
	sk->sk_net_refcnt = 1;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	__netns_tracker_free(sock_net(sk), &sk->ns_tracker, false);
#endif
	get_net_track(sock_net(sk), &sk->ns_tracker, GFP_KERNEL);
	sock_inuse_add(sock_net(sk), 1);
#else
	sk->sk_net_refcnt = 1;
	get_net(sock_net(sk));
	this_cpu_add(*sock_net(sk)->core.sock_inuse, 1);
#endif
}

/**
 * compat_tcp_send_pages() - send pages as they are; TCP takes references and copies nothing
 * @sk: a connected socket that the caller owns or has locked, whose route can gather
 * @page: pages that pass sendpage_ok(), each with where and how many bytes
 * @n: how many
 * @len: their bytes
 * @more: further sends follow at once
 *
 * tcp_sendpage_locked() went with 6.5, when MSG_SPLICE_PAGES came. Debian's 6.1 defines that flag,
 * and ignores it.
 *
 * Return: how many bytes were taken, or a negative errno.
 */
static inline int compat_tcp_send_pages(struct sock *sk, struct bio_vec *page, size_t n, size_t len,
					bool more)
{
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	struct msghdr msg = { .msg_flags = flags | MSG_SPLICE_PAGES };

	iov_iter_bvec(&msg.msg_iter, WRITE, page, n, len);
	return tcp_sendmsg_locked(sk, &msg, len);
#else
	int total = 0, sent;
	size_t i;

	for (i = 0; i < n; i++) {
		sent = tcp_sendpage_locked(sk, page[i].bv_page, page[i].bv_offset, page[i].bv_len,
					   i + 1 < n ? flags | MSG_MORE | MSG_SENDPAGE_NOTLAST
						     : flags);
		if (sent < 0)
			return total ?: sent;
		total += sent;
		if (sent < page[i].bv_len)
			break;
	}
	return total;
#endif
}

/*
 * A sysctl handler's table is const from 6.11 on; an array of entries had to end with an empty one
 * up to 6.5, and must not from then on.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define COMPAT_CTL_TABLE const struct ctl_table
#else
#define COMPAT_CTL_TABLE struct ctl_table
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define COMPAT_SYSCTL_END {},
#else
#define COMPAT_SYSCTL_END
#endif

/* PDE_DATA() became pde_data() with 5.17. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
#define pde_data(inode) PDE_DATA(inode)
#endif

/**
 * compat_inet_lookup_established() - look up a connection, a request or a TIME-WAIT socket
 * @net: whose
 * @saddr: the peer's address
 * @sport: the peer's port
 * @daddr: the address here
 * @hnum: the port here, host byte order
 * @ifindex: also those bound to this interface; 0 for those bound to none
 *
 * Called in an RCU read-side section. Up to 6.17 the table to look in is an argument.
 *
 * Return: the socket, held, for sock_gen_put(); or NULL.
 */
static inline struct sock *compat_inet_lookup_established(struct net *net, __be32 saddr,
							  __be16 sport, __be32 daddr, u16 hnum,
							  int ifindex)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	return __inet_lookup_established(net, saddr, sport, daddr, hnum, ifindex, 0);
#else
	return __inet_lookup_established(net, net->ipv4.tcp_death_row.hashinfo, saddr, sport, daddr,
					 hnum, ifindex, 0);
#endif
}

#if IS_ENABLED(CONFIG_IPV6)
/**
 * compat_inet6_lookup_established() - compat_inet_lookup_established() for IPv6
 * @net: whose
 * @saddr: the peer's address
 * @sport: the peer's port
 * @daddr: the address here
 * @hnum: the port here, host byte order
 * @ifindex: also those bound to this interface; 0 for those bound to none
 *
 * Return: the socket, held, or NULL.
 */
static inline struct sock *
compat_inet6_lookup_established(struct net *net, const struct in6_addr *saddr, __be16 sport,
				const struct in6_addr *daddr, u16 hnum, int ifindex)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	return __inet6_lookup_established(net, saddr, sport, daddr, hnum, ifindex, 0);
#else
	return __inet6_lookup_established(net, net->ipv4.tcp_death_row.hashinfo, saddr, sport,
					  daddr, hnum, ifindex, 0);
#endif
}
#endif

/**
 * compat_listen_bucket() - a bucket of the table of listeners
 * @table: a namespace's tables
 * @i: which, from 0
 *
 * Up to 5.18 the table that holds every listener is hashed by port; then it went, and the one
 * hashed by address and port holds them all.
 *
 * Return: the bucket, or NULL past the last.
 */
static inline struct inet_listen_hashbucket *compat_listen_bucket(struct inet_hashinfo *table,
								  unsigned int i)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
	return i <= table->lhash2_mask ? &table->lhash2[i] : NULL;
#else
	return i < INET_LHTABLE_SIZE ? &table->listening_hash[i] : NULL;
#endif
}

/**
 * compat_tcp_destroy() - abort a connection, drop a request or close a listener
 * @sk: held by the caller; not in TIME-WAIT
 * @err: what its owner is told, such as ECONNABORTED
 *
 * A full socket is asked by its protocol's own operation, as sock_diag does: MPTCP refuses to have
 * a listener closed. Before 6.13, and its stable updates, that operation leaves an orphan's
 * connection alone but says that it has aborted it; and up to 5.10 also when the connection was
 * closed already.
 *
 * Return: 0; -ENOENT if it was closed already; another negative errno if it may not be done.
 */
static inline int compat_tcp_destroy(struct sock *sk, int err)
{
	const struct proto *prot = READ_ONCE(sk->sk_prot);
	int ret;

	if (!sk_fullsock(sk))
		return tcp_abort(sk, err);
	if (!prot->diag_destroy)
		return -EOPNOTSUPP;
	if (inet_sk_state_load(sk) == TCP_CLOSE)
		return -ENOENT;
	ret = prot->diag_destroy(sk, err);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
	if (ret || inet_sk_state_load(sk) == TCP_CLOSE)
		return ret;
	ret = -ENOENT;
	lock_sock(sk);
	local_bh_disable();
	bh_lock_sock(sk);
	if (sk->sk_state != TCP_CLOSE && sock_flag(sk, SOCK_DEAD)) {
		tcp_done(sk);
		ret = 0;
	}
	bh_unlock_sock(sk);
	local_bh_enable();
	release_sock(sk);
#endif
	return ret;
}

#endif /* KNET_COMPAT_H */
