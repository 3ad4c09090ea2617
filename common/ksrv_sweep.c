// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_sweep.c - looks at every connection's deadlines once a second, so that a packet costs no
 * timer.
 */
#include <linux/tcp.h>

#include "ksrv_impl.h"

/*
 * A connection that has got a page of its own needs it no more once all is acknowledged; the next
 * answer may be long in coming.
 */
static void take_page(struct sock *sk)
{
	local_bh_disable();
	bh_lock_sock(sk);
	if (!sock_owned_by_user(sk) && sk->sk_frag.page &&
	    tcp_sk(sk)->snd_una == tcp_sk(sk)->write_seq)
		ksrv_drop_page(sk);
	bh_unlock_sock(sk);
	local_bh_enable();
}

/*
 * A byte that the peer has acknowledged has moved as well: a slow reader is not idle. While a
 * window is shut, TCP counts its user timeout from the first probe on, also past acknowledged data,
 * until what waits first fits into the window as a whole: it counts from the data again.
 */
static void look_at_acks(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;
	struct inet_connection_sock *icsk = inet_csk(sk);
	u32 una = READ_ONCE(tcp_sk(sk)->snd_una);

	if (una == conn->seen_una)
		return;
	WRITE_ONCE(conn->stamp, jiffies);
	if (!READ_ONCE(icsk->icsk_user_timeout)) {
		conn->seen_una = una;
		return;
	}
	local_bh_disable();
	bh_lock_sock(sk);
	/* Of an owned socket the next sweep sees the same. */
	if (!sock_owned_by_user(sk)) {
		icsk->icsk_probes_tstamp = 0;
		conn->seen_una = una;
	}
	bh_unlock_sock(sk);
	local_bh_enable();
}

static bool is_idle(const struct ksrv_conn *conn, unsigned int timeout)
{
	return time_after(jiffies, READ_ONCE(conn->stamp) + (unsigned long)timeout * HZ);
}

static bool is_due(const struct ksrv_conn *conn)
{
	unsigned long deadline = READ_ONCE(conn->deadline);

	return deadline && time_after(jiffies, deadline);
}

/* The pump has taken as much as it may at a time, and an I/O worker is to take the rest. */
static bool has_input_left(const struct ksrv_conn *conn)
{
	return conn->queued && !conn->blocked && !conn->finish &&
	       !skb_queue_empty(&conn->sock->sk->sk_receive_queue);
}

/*
 * Tells the protocol, under the pump's lock. An owned socket waits for the next sweep. What has
 * come and waits for a worker came in time.
 */
static void expire(struct ksrv_server *srv, struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;

	local_bh_disable();
	bh_lock_sock(sk);
	if (!sock_owned_by_user(sk)) {
		ksrv_pump(conn, false);
		if (!conn->flags && is_due(conn) && !has_input_left(conn) &&
		    ksrv_pump_expired(conn))
			ksrv_count(srv, KSRV_TIMEOUTS, 1);
	}
	bh_unlock_sock(sk);
	local_bh_enable();
}

/**
 * ksrv_sweep_work() - the sweep; runs again as long as there are connections
 * @work: ksrv_server.sweep
 */
void ksrv_sweep_work(struct work_struct *work)
{
	struct ksrv_server *srv = container_of(to_delayed_work(work), struct ksrv_server, sweep);
	const struct ksrv_uint *idle = srv->svc->idle_timeout;
	unsigned int timeout = idle ? ksrv_uint(idle) : 0;
	struct ksrv_conn *conn;

	mutex_lock(&srv->conns_mutex);
	list_for_each_entry(conn, &srv->conns, node) {
		cond_resched();
		if (READ_ONCE(conn->flags) & (BIT(KSRV_C_DYING) | BIT(KSRV_C_OPENING)))
			continue;
		look_at_acks(conn);
		if (READ_ONCE(conn->sock->sk->sk_frag.page))
			take_page(conn->sock->sk);
		if (is_due(conn))
			expire(srv, conn);
		if (timeout && is_idle(conn, timeout) && ksrv_conn_end(conn, KSRV_END_RESET))
			ksrv_count_bh(srv, KSRV_TIMEOUTS);
	}
	mutex_unlock(&srv->conns_mutex);
	if (atomic_read(&srv->active))
		queue_delayed_work(srv->sweep_wq, &srv->sweep, KSRV_SWEEP_PERIOD);
}
