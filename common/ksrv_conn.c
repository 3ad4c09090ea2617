// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_conn.c - a connection's birth and death.
 */
#include <linux/slab.h>
#include <linux/tcp.h>
#include <net/tcp.h>

#include "ksrv_impl.h"

static void release_work(struct work_struct *work);

void *ksrv_conn_priv(struct ksrv_conn *conn)
{
	return conn->priv;
}

/**
 * ksrv_socket_reset() - close a socket by RST and leave nothing of it behind
 * @sock: a connected socket without callbacks of ours
 */
void ksrv_socket_reset(struct socket *sock)
{
	sock_no_linger(sock->sk);
	sock_release(sock);
}

/*
 * The kernel's original callbacks for an accepted socket, which has inherited the listener's:
 * those are module text, and not meant for it.
 */
static void disinherit(struct ksrv_server *srv, struct sock *sk)
{
	write_lock(&sk->sk_callback_lock);
	sk->sk_data_ready = srv->data_ready;
	sk->sk_state_change = srv->state_change;
	write_unlock(&sk->sk_callback_lock);
}

/*
 * Puts our callbacks in. The pump's lock is held, so none runs before all are there. Return: false
 * if somebody else has the socket already, as a BPF sockmap, which takes one under the same lock.
 * It may give it back under the callbacks' lock alone, and what it puts back are the listener's.
 */
static bool attach(struct ksrv_conn *conn, struct sock *sk)
{
	write_lock(&sk->sk_callback_lock);
	if (unlikely(sk->sk_user_data)) {
		write_unlock(&sk->sk_callback_lock);
		return false;
	}
	conn->data_ready = conn->srv->data_ready;
	conn->write_space = sk->sk_write_space;
	conn->state_change = conn->srv->state_change;
	conn->error_report = sk->sk_error_report;
	rcu_assign_sk_user_data(sk, conn);
	sk->sk_data_ready = ksrv_data_ready;
	sk->sk_write_space = ksrv_write_space;
	sk->sk_state_change = ksrv_state_change;
	sk->sk_error_report = ksrv_state_change;
	write_unlock(&sk->sk_callback_lock);
	conn->allocation = sk->sk_allocation;
	sk->sk_allocation = KSRV_GFP;
	compat_sk_no_task_frag(sk);
	return true;
}

static void detach(struct ksrv_conn *conn, struct sock *sk)
{
	const struct ksrv_ops *ops = conn->srv->svc->ops;

	write_lock(&sk->sk_callback_lock);
	rcu_assign_sk_user_data(sk, NULL);
	sk->sk_data_ready = conn->data_ready;
	sk->sk_write_space = conn->write_space;
	sk->sk_state_change = conn->state_change;
	sk->sk_error_report = conn->error_report;
	write_unlock(&sk->sk_callback_lock);
	sk->sk_allocation = conn->allocation;
	conn->detached = true;
	if (conn->end == KSRV_END_ERROR) {
		ksrv_count(conn->srv, KSRV_ERRORS, 1);
	} else if (conn->end == KSRV_END_TIMEOUT) {
		ksrv_count(conn->srv, KSRV_TIMEOUTS, 1);
		ops->timed_out(conn);
	}
}

/*
 * Return: the connection, or an ERR_PTR(): -EUSERS for too many, -EAGAIN if some have ended,
 * -ENOMEM.
 */
static struct ksrv_conn *alloc_conn(struct ksrv_server *srv, struct socket *sock)
{
	int ended = atomic_read(&srv->ended);
	struct ksrv_conn *conn;
	int err;

	smp_rmb(); /* free_conn() counts in the other order */
	if (atomic_read(&srv->active) >= ksrv_uint(srv->svc->max_conns))
		return ERR_PTR(ended ? -EAGAIN : -EUSERS);
	conn = kmem_cache_zalloc(srv->cache, GFP_KERNEL);
	if (!conn)
		return ERR_PTR(-ENOMEM);
	err = ksrv_peer_get(srv, sock->sk, &conn->peer);
	if (err) {
		kmem_cache_free(srv->cache, conn);
		return ERR_PTR(err);
	}
	conn->srv = srv;
	conn->sock = sock;
	conn->flags = BIT(KSRV_C_OPENING);
	INIT_DELAYED_WORK(&conn->later, ksrv_later_work);
	INIT_WORK(&conn->release, release_work);
	conn->stamp = jiffies;
	conn->seen_una = tcp_sk(sock->sk)->snd_una;
	conn->acked = jiffies;
	return conn;
}

/* Resets an accepted socket that is not served, and counts it as @why. */
static void refuse(struct ksrv_server *srv, struct socket *sock, enum ksrv_counter why)
{
	ksrv_lock(sock->sk);
	disinherit(srv, sock->sk);
	ksrv_count(srv, why, 1);
	ksrv_unlock(sock->sk);
	ksrv_socket_reset(sock);
}

/* An alloc_conn() that waits for what has ended, since its place is free. */
static struct ksrv_conn *alloc_conn_patiently(struct ksrv_server *srv, struct socket *sock)
{
	struct ksrv_conn *conn = alloc_conn(srv, sock);
	unsigned int tries;

	for (tries = 0; unlikely(conn == ERR_PTR(-EAGAIN)) && tries < KSRV_FLUSH_TRIES; tries++) {
		if (tries)
			usleep_range(500, 1000); /* for an I/O worker */
		ksrv_conn_flush_ended(srv);
		conn = alloc_conn(srv, sock);
	}
	return conn;
}

/* Takes back alloc_conn() and what came of it, of a connection that was never attached. */
static void forget_conn(struct ksrv_conn *conn)
{
	struct ksrv_server *srv = conn->srv;

	mutex_lock(&srv->conns_mutex);
	list_del(&conn->node);
	ksrv_peer_put(srv, conn->peer);
	mutex_unlock(&srv->conns_mutex);
	kmem_cache_free(srv->cache, conn);
	if (atomic_dec_and_test(&srv->active))
		wake_up_all(&srv->idle);
}

/**
 * ksrv_conn_open() - begin to serve an accepted socket
 * @srv: the server
 * @sock: the socket; taken over, whatever happens
 *
 * The accept worker calls this. Above max_conns or max_conns_per_ip, without memory, or where
 * somebody else's sk_user_data is in it already, as that of a BPF sockmap, the socket is reset.
 */
void ksrv_conn_open(struct ksrv_server *srv, struct socket *sock)
{
	struct sock *sk = sock->sk;
	struct ksrv_conn *conn;

	conn = alloc_conn_patiently(srv, sock);
	if (IS_ERR(conn)) {
		refuse(srv, sock, PTR_ERR(conn) == -ENOMEM ? KSRV_ERRORS : KSRV_REJECTED);
		return;
	}
	/* On the list first: a connection that dies at once is to be found there by its release. */
	if (atomic_inc_return(&srv->active) == 1)
		queue_delayed_work(srv->sweep_wq, &srv->sweep, KSRV_SWEEP_PERIOD);
	mutex_lock(&srv->conns_mutex);
	list_add_tail(&conn->node, &srv->conns);
	mutex_unlock(&srv->conns_mutex);

	ksrv_lock(sk);
	disinherit(srv, sk);
	if (unlikely(!attach(conn, sk))) {
		ksrv_unlock(sk);
		forget_conn(conn);
		refuse(srv, sock, KSRV_ERRORS);
		return;
	}
	ksrv_count(srv, KSRV_ACCEPTED, 1);
	clear_bit(KSRV_C_OPENING, &conn->flags);
	if (srv->svc->ops->open)
		srv->svc->ops->open(conn);
	/* Data, FIN or RST may have come before the callbacks were there: look once. */
	ksrv_pump(conn, false);
	ksrv_state_change(sk);
	ksrv_unlock(sk);
}

/* For alloc_conn() to know that it will be freed. Return: false if it was to be before. */
static bool begin_end(struct ksrv_conn *conn, enum ksrv_end how)
{
	if (test_and_set_bit(KSRV_C_DYING, &conn->flags))
		return false;
	conn->end = how;
	atomic_inc(&conn->srv->ended);
	if (conn->peer)
		atomic_inc(&conn->peer->ended);
	return true;
}

bool ksrv_conn_end(struct ksrv_conn *conn, enum ksrv_end how)
{
	if (!begin_end(conn, how))
		return false;
	queue_work(conn->srv->release_wq, &conn->release);
	return true;
}

/**
 * ksrv_conn_leave() - end a connection that has said and heard all
 * @conn: a connection whose FIN was sent, and whose peer's was reached, with nothing but the FIN
 *	yet to be acknowledged, or whose socket is closed; whoever calls holds the pump's lock or
 *	owns the socket
 *
 * Nobody waits for what is left to do, so it is done for many at once: to wake a thread for each
 * would add 5 % to all that the machine does for a short connection.
 */
void ksrv_conn_leave(struct ksrv_conn *conn)
{
	struct ksrv_server *srv = conn->srv;
	struct ksrv_cpu *cpu = raw_cpu_ptr(srv->cpu);

	if (!begin_end(conn, KSRV_END_ORDERLY))
		return;
	if (llist_add(&conn->left, &cpu->left))
		queue_delayed_work(srv->release_wq, &cpu->leave, KSRV_LEAVE_DELAY);
}

/*
 * Until now the sweep has seen to that. TCP may have counted meanwhile: since the first probe of a
 * window that was shut, which begins anew, or since a loss, which then has TCP's own bounds.
 */
static void set_user_timeout(const struct ksrv_conn *conn, struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);

	if (!conn->user_timeout || tcp_sk(sk)->retrans_stamp)
		return;
	icsk->icsk_probes_tstamp = 0;
	WRITE_ONCE(icsk->icsk_user_timeout, conn->user_timeout * MSEC_PER_SEC);
}

/*
 * Leaves the rest of an orderly end to core TCP: what is queued, then FIN, retransmitted as long
 * as it takes. Core TCP does so only for a socket that holds its namespace.
 */
static void close_orderly(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;
	struct net *net = NULL;

	if (READ_ONCE(sk->sk_state) != TCP_CLOSE)
		net = maybe_get_net(sock_net(sk));
	if (net) {
		compat_sk_hold_net(sk); /* which does no harm to one that has closed meanwhile */
		lock_sock(sk);
		set_user_timeout(conn, sk);
		release_sock(sk);
		put_net(net);
	}
	sock_release(conn->sock);
}

static void close_socket(struct ksrv_conn *conn)
{
	if (conn->end == KSRV_END_ORDERLY)
		close_orderly(conn);
	else if (check_net(conn->srv->net))
		ksrv_socket_reset(conn->sock);
	else
		sock_release(conn->sock); /* tcp_close() destroys it, in a dying namespace */
}

/* Stage 2 of ksrv.h. Return: whether an I/O worker will come by, and queue the release worker. */
static bool let_go(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;
	bool queued;

	ksrv_lock(sk);
	if (!conn->detached)
		detach(conn, sk);
	queued = conn->queued;
	ksrv_unlock(sk);
	return queued;
}

/* Stages 3 to 5 of ksrv.h; the order is what makes freeing safe. */
static void free_conn(struct ksrv_conn *conn)
{
	struct ksrv_server *srv = conn->srv;

	if (conn->delayed)
		cancel_delayed_work_sync(&conn->later);

	mutex_lock(&srv->conns_mutex);
	list_del(&conn->node);
	if (conn->peer)
		atomic_dec(&conn->peer->ended);
	ksrv_peer_put(srv, conn->peer);
	mutex_unlock(&srv->conns_mutex);

	if (srv->svc->ops->close)
		srv->svc->ops->close(conn);
	close_socket(conn);
	kmem_cache_free(srv->cache, conn);
	ksrv_count_bh(srv, KSRV_CLOSED);
	if (atomic_dec_and_test(&srv->active))
		wake_up_all(&srv->idle);
	/* Last, or alloc_conn() might find its place taken by one not counted here any more. */
	atomic_dec(&srv->ended);
}

static void release_work(struct work_struct *work)
{
	struct ksrv_conn *conn = container_of(work, struct ksrv_conn, release);

	if (!let_go(conn))
		free_conn(conn);
}

/**
 * ksrv_conn_leave_work() - the release worker of a CPU's connections that have said and heard all
 * @work: ksrv_cpu.leave
 */
void ksrv_conn_leave_work(struct work_struct *work)
{
	struct ksrv_cpu *cpu = container_of(to_delayed_work(work), struct ksrv_cpu, leave);
	struct llist_node *all = llist_del_all(&cpu->left);
	struct ksrv_conn *conn, *next;

	llist_for_each_entry_safe(conn, next, all, left) {
		if (!let_go(conn))
			free_conn(conn);
		cond_resched();
	}
}

/**
 * ksrv_conn_flush_ended() - free at once what has ended, and wait for that
 * @srv: the server
 *
 * Process context; sleeps. Not waited for are those that an I/O worker is still due for.
 * The accept worker does this only where some are counted as ended, so each run costs whoever makes
 * it do so a connection.
 */
void ksrv_conn_flush_ended(struct ksrv_server *srv)
{
	struct delayed_work *leave;
	int cpu;

	/* All CPUs' at a time. */
	for_each_possible_cpu(cpu) {
		leave = &per_cpu_ptr(srv->cpu, cpu)->leave;
		if (delayed_work_pending(leave))
			mod_delayed_work(srv->release_wq, leave, 0);
	}
	flush_workqueue(srv->release_wq);
}
