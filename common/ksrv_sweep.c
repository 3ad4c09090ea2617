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

/* A byte that the peer has acknowledged has moved as well: a slow reader is not idle. */
static void look_at_acks(struct ksrv_conn *conn)
{
	const struct tcp_sock *tp = tcp_sk(conn->sock->sk);
	u32 una = READ_ONCE(tp->snd_una);
	bool unacked = una != READ_ONCE(tp->write_seq);

	if (una != conn->seen_una)
		WRITE_ONCE(conn->stamp, jiffies);
	/* The last sweep may be long ago: what was sent since has its time from now on. */
	if (una != conn->seen_una || !unacked || !conn->unacked)
		conn->acked = jiffies;
	conn->seen_una = una;
	conn->unacked = unacked;
}

/*
 * TCP's own user timeout goes by when a loss began, or a window was shut, also past what has been
 * acknowledged since; here it goes by that.
 */
static bool is_deaf(const struct ksrv_conn *conn)
{
	unsigned int timeout = READ_ONCE(conn->user_timeout);

	return timeout && time_after(jiffies, conn->acked + ksrv_jiffies(timeout));
}

static bool is_idle(const struct ksrv_conn *conn, unsigned int timeout)
{
	return time_after(jiffies, READ_ONCE(conn->stamp) + ksrv_jiffies(timeout));
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

/* What is due, with @timeout the idle_timeout, 0 for none. The pump's lock is held. */
static void judge(struct ksrv_server *srv, struct ksrv_conn *conn, unsigned int timeout)
{
	bool late = is_due(conn) || (timeout && is_idle(conn, timeout));

	/* What has come and waits for a worker came in time. */
	if (late)
		ksrv_pump(conn, false);
	if (conn->flags & BIT(KSRV_C_DYING))
		return;
	look_at_acks(conn);
	if (is_deaf(conn))
		ksrv_give_up(conn);
	else if (!late || has_input_left(conn))
		return;
	else if (!conn->flags && is_due(conn) && ksrv_pump_expired(conn))
		ksrv_count(srv, KSRV_TIMEOUTS, 1);
	else if (timeout && is_idle(conn, timeout) && ksrv_conn_end(conn, KSRV_END_RESET))
		ksrv_count(srv, KSRV_TIMEOUTS, 1);
}

/* An owned socket waits for the next sweep. */
static void look_at(struct ksrv_server *srv, struct ksrv_conn *conn, unsigned int timeout)
{
	struct sock *sk = conn->sock->sk;

	local_bh_disable();
	bh_lock_sock(sk);
	if (!sock_owned_by_user(sk))
		judge(srv, conn, timeout);
	bh_unlock_sock(sk);
	local_bh_enable();
}

/* Without the pump's lock, which is taken only where something may be due. */
static void look_over(struct ksrv_server *srv, struct ksrv_conn *conn, unsigned int timeout)
{
	if (READ_ONCE(conn->flags) & (BIT(KSRV_C_DYING) | BIT(KSRV_C_OPENING)))
		return;
	look_at_acks(conn);
	if (READ_ONCE(conn->sock->sk->sk_frag.page))
		take_page(conn->sock->sk);
	if (is_due(conn) || is_deaf(conn) || (timeout && is_idle(conn, timeout)))
		look_at(srv, conn, timeout);
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
	unsigned int n = 0;

	mutex_lock(&srv->conns_mutex);
	list_for_each_entry(conn, &srv->conns, node) {
		cond_resched();
		look_over(srv, conn, timeout);
		if (++n % KSRV_SWEEP_BATCH)
			continue;
		list_add(&srv->swept, &conn->node);
		mutex_unlock(&srv->conns_mutex);
		cond_resched();
		mutex_lock(&srv->conns_mutex);
		/* The one before it now, be it the list's head, has been looked at. */
		conn = list_entry(srv->swept.prev, struct ksrv_conn, node);
		list_del(&srv->swept);
	}
	mutex_unlock(&srv->conns_mutex);
	if (atomic_read(&srv->active))
		queue_delayed_work(srv->sweep_wq, &srv->sweep, KSRV_SWEEP_PERIOD);
}
