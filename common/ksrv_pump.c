// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_pump.c - moves bytes: from the receive queue through the protocol, which sends what it has
 * to say by ksrv_send.c.
 *
 * The pump runs in two places, the socket's data_ready (softirq) and the connection's I/O
 * worker, and in both under the same rule: bottom halves off, the socket's spinlock held, no
 * process owning the socket. lock_sock() would not do: with the socket owned, the 17th buffer of
 * one tcp_sendmsg_locked() flushes the backlog, which may collapse the receive queue and free
 * the buffer that tcp_read_sock() is just offering.
 */
#include <linux/kthread.h>
#include <linux/tcp.h>
#include <net/tcp.h>

#include "ksrv_impl.h"

#ifdef CONFIG_PREEMPT_RT
#error "a CPU's own data is guarded by bottom halves that are off: PREEMPT_RT is not supported"
#endif

/**
 * ksrv_lock() - take a socket for pumping, attaching or detaching
 * @sk: a connected socket
 *
 * Process context. Where a process owns the socket, waits for it to let go.
 */
void ksrv_lock(struct sock *sk) __acquires(&sk->sk_lock.slock)
{
	for (;;) {
		local_bh_disable();
		bh_lock_sock(sk);
		if (likely(!sock_owned_by_user(sk)))
			return;
		bh_unlock_sock(sk);
		local_bh_enable();
		lock_sock(sk);
		release_sock(sk);
	}
}

/**
 * ksrv_unlock() - the reverse of ksrv_lock()
 * @sk: the socket
 */
void ksrv_unlock(struct sock *sk) __releases(&sk->sk_lock.slock)
{
	bh_unlock_sock(sk);
	local_bh_enable();
}

/* Has an I/O worker pump. Whoever calls holds the pump's lock or owns the socket. */
static void queue_io(struct ksrv_conn *conn)
{
	struct ksrv_cpu *cpu = raw_cpu_ptr(conn->srv->cpu)->io;

	if (conn->queued)
		return;
	conn->queued = true;
	if (llist_add(&conn->ready, &cpu->ready))
		wake_up_process(cpu->worker);
}

/**
 * ksrv_queue_later() - run work() if it was asked for, and pump
 * @conn: the connection; the pump's lock is held
 * @delay: jiffies until then
 */
void ksrv_queue_later(struct ksrv_conn *conn, unsigned long delay)
{
	conn->delayed = true;
	mod_delayed_work(conn->srv->work_wq, &conn->later, delay);
}

void ksrv_conn_defer(struct ksrv_conn *conn)
{
	conn->deferred = true;
}

void ksrv_conn_deadline(struct ksrv_conn *conn, unsigned int seconds, unsigned int kind)
{
	conn->deadline_kind = kind;
	/* 0 stands for none, so a deadline that falls on it is put off by a jiffy. */
	WRITE_ONCE(conn->deadline, seconds ? (jiffies + ksrv_jiffies(seconds)) ?: 1 : 0);
}

void ksrv_conn_count(struct ksrv_conn *conn, unsigned int which)
{
	__this_cpu_inc(conn->srv->cpu->own[which]);
}

bool ksrv_conn_unacked(struct ksrv_conn *conn)
{
	const struct tcp_sock *tp = tcp_sk(conn->sock->sk);

	return tp->snd_una != tp->write_seq;
}

unsigned long ksrv_conn_moved(struct ksrv_conn *conn)
{
	return READ_ONCE(conn->stamp);
}

void ksrv_conn_user_timeout(struct ksrv_conn *conn, unsigned int seconds)
{
	WRITE_ONCE(conn->user_timeout, seconds <= KSRV_USER_TIMEOUT_MAX ? seconds : 0);
}

void ksrv_conn_finish(struct ksrv_conn *conn)
{
	if (!conn->finish)
		conn->finish = KSRV_F_ASKED;
}

/* tcp_read_sock() calls this for each buffer, and again for what was not taken of it. */
static int pump_skb(read_descriptor_t *desc, struct sk_buff *skb, unsigned int off, size_t len)
{
	struct ksrv_conn *conn = desc->arg.data;
	struct sock *sk = conn->sock->sk;
	struct ksrv_input in;
	int taken, cost;

	if (conn->blocked || conn->deferred || test_bit(KSRV_C_DYING, &conn->flags))
		return 0;
	if (!desc->count)
		return 0;
	in.skb = skb;
	in.off = off;
	in.len = len;
	in.place[0].part = NULL; /* which says that the rest is not set */
	conn->answered = 0;
	taken = conn->finish ? 0 : conn->srv->svc->ops->recv(conn, &in);
	if (unlikely(taken < 0)) {
		ksrv_conn_end(conn, KSRV_END_ERROR);
		return 0;
	}
	if (unlikely(conn->finish))
		taken = len; /* the last is said: nobody wants the rest */
	else if (unlikely(conn->blocked || conn->deferred))
		conn->unfinished = true; /* even if it took all: the end of input has to wait */
	else if (unlikely(!taken))
		ksrv_conn_end(conn, KSRV_END_ERROR); /* input in a device's memory */
	/*
	 * No answer acknowledges it, and the client's next segment may wait for that (Nagle's
	 * algorithm): without this tcp_read_sock() would leave the ACK to the delayed ACK's timer.
	 */
	if (taken && inet_csk_ack_scheduled(sk) && tcp_sk(sk)->write_seq == tcp_sk(sk)->snd_nxt)
		inet_csk_exit_pingpong_mode(sk);
	/* A few bytes may ask for many. */
	cost = max3(taken, conn->answered, KSRV_PUMP_COST);
	desc->count -= min_t(size_t, cost, desc->count);
	desc->written += taken;
	return taken;
}

/* Lets the protocol go on where a short send or work() interrupted it. True: all is sent. */
static bool resume(struct ksrv_conn *conn)
{
	const struct ksrv_ops *ops = conn->srv->svc->ops;
	int err;

	conn->unfinished = false;
	if (!ops->resume)
		return true;
	err = ops->resume(conn);
	if (err && err != -EAGAIN)
		ksrv_conn_end(conn, KSRV_END_ERROR);
	if (err == -EAGAIN || conn->blocked || conn->deferred)
		conn->unfinished = true;
	return !err && !conn->unfinished;
}

/**
 * ksrv_give_up() - end a connection whose peer does not acknowledge what was sent
 * @conn: the connection; the pump's lock is held
 *
 * detach() counts it.
 */
void ksrv_give_up(struct ksrv_conn *conn)
{
	ksrv_conn_end(conn, conn->srv->svc->ops->timed_out ? KSRV_END_TIMEOUT : KSRV_END_ERROR);
}

/* The socket is closed, or has an error. */
static void end_broken(struct ksrv_conn *conn, struct sock *sk)
{
	switch (sk->sk_err) {
	case 0:
		ksrv_conn_end(conn, KSRV_END_RESET);
		break;
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
		ksrv_conn_end(conn, KSRV_END_ERROR);
		break;
	default:
		/* Retransmissions timed out: ETIMEDOUT, or what ICMP had said meanwhile. */
		ksrv_give_up(conn);
	}
}

/* Whether the peer has yet to acknowledge what came before the FIN, or to be sent that. */
static bool is_unread(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);

	return tp->snd_nxt != tp->write_seq || tp->write_seq - tp->snd_una > 1;
}

/*
 * FINs have gone both ways. A peer that has yet to acknowledge what was sent is a client still,
 * counted and with a deadline: core TCP would keep it as an orphan for as long as it pleases. When
 * all is acknowledged, tcp_done() says so, by ksrv_state_change().
 */
static void leave(struct ksrv_conn *conn, const struct sock *sk)
{
	if (likely(!is_unread(sk)))
		ksrv_conn_leave(conn);
}

/* What has come to an end or failed, after a run of the pump took all it could. */
static void look_for_end(struct ksrv_conn *conn, struct sock *sk)
{
	const struct ksrv_ops *ops = conn->srv->svc->ops;

	if (sk->sk_state == TCP_CLOSE || sk->sk_err) {
		end_broken(conn, sk);
		return;
	}
	if (!(sk->sk_shutdown & RCV_SHUTDOWN) || !skb_queue_empty(&sk->sk_receive_queue) ||
	    conn->unfinished || conn->eof_told || test_bit(KSRV_C_DYING, &conn->flags))
		return;
	conn->eof_told = true;
	if (conn->finish == KSRV_F_LINGERING)
		leave(conn, sk);
	else if (ops->eof && !conn->finish)
		ops->eof(conn);
	else
		ksrv_conn_finish(conn);
}

/*
 * As shutdown() does for a process, and in the segment of the last answer where that was sent with
 * @more. Return: false if there was no memory for it, which TCP will not try again; nor would it
 * send RST in LAST_ACK, unless there was something yet to be sent: let the FIN be that.
 */
static bool send_fin(struct sock *sk)
{
	u32 seq = tcp_sk(sk)->write_seq;

	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
	sk->sk_prot->shutdown(sk, SEND_SHUTDOWN);
	if (likely(tcp_sk(sk)->write_seq != seq) ||
	    !(1 << sk->sk_state & (TCPF_FIN_WAIT1 | TCPF_LAST_ACK)))
		return true;
	WRITE_ONCE(tcp_sk(sk)->write_seq, seq + 1);
	return false;
}

/*
 * All is said: sends the FIN. With the peer's FIN here too, and all before it read, there is
 * nothing to wait for.
 */
static void finish(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;

	if (test_bit(KSRV_C_DYING, &conn->flags))
		return;
	conn->finish = KSRV_F_LINGERING;
	if (unlikely(!send_fin(sk))) {
		ksrv_conn_end(conn, KSRV_END_ERROR);
		return;
	}
	/* From here on, what comes of the peer's but acknowledgments is nothing that moves. */
	WRITE_ONCE(conn->stamp, jiffies);
	ksrv_conn_deadline(conn, KSRV_LINGER_SECONDS, 0);
	if ((sk->sk_shutdown & RCV_SHUTDOWN) && skb_queue_empty(&sk->sk_receive_queue))
		leave(conn, sk);
}

/*
 * It has lingered for its time. Who goes on reading is not cut off, and who does not is given up as
 * any other.
 */
static void expire_lingering(struct ksrv_conn *conn)
{
	const struct ksrv_service *svc = conn->srv->svc;
	const struct ksrv_uint *patience = svc->unread_timeout;
	unsigned long passed = jiffies - ksrv_conn_moved(conn);

	if (!is_unread(conn->sock->sk) || (!patience && !svc->idle_timeout))
		ksrv_conn_end(conn, KSRV_END_ORDERLY);
	else if (!patience || passed < ksrv_jiffies(ksrv_uint(patience)))
		ksrv_conn_deadline(conn, 1, 0);
	else
		ksrv_give_up(conn);
}

/* Brackets of every call of the protocol: what it asked for meanwhile is set going at the end. */
static void pump_begin(struct ksrv_conn *conn)
{
	conn->in_pump = true;
}

static void pump_end(struct ksrv_conn *conn)
{
	if (unlikely(conn->finish == KSRV_F_ASKED))
		finish(conn);
	conn->in_pump = false;
	if (unlikely(conn->blocked || conn->deferred))
		conn->unfinished = true;
	if (unlikely(conn->deferred) && !test_and_set_bit(KSRV_C_ASLEEP, &conn->flags))
		ksrv_queue_later(conn, 0);
}

/**
 * ksrv_pump_expired() - tell the protocol that its deadline has passed
 * @conn: the connection, attached
 *
 * The pump's lock is held.
 *
 * Return: whether it was a time-out.
 */
bool ksrv_pump_expired(struct ksrv_conn *conn)
{
	const struct ksrv_ops *ops = conn->srv->svc->ops;
	bool timeout = true;

	WRITE_ONCE(conn->deadline, 0);
	if (conn->finish) {
		expire_lingering(conn);
		return false;
	}
	pump_begin(conn);
	if (ops->expired)
		timeout = ops->expired(conn, conn->deadline_kind);
	else
		ksrv_conn_end(conn, KSRV_END_RESET);
	pump_end(conn);
	return timeout;
}

/**
 * ksrv_pump() - move what can be moved now
 * @conn: the connection, attached
 * @softirq: called from the receive path, for the statistics
 *
 * The pump's lock is held. Never sleeps, never frees.
 *
 * Return: how much of KSRV_PUMP_BUDGET was used up.
 */
size_t ksrv_pump(struct ksrv_conn *conn, bool softirq)
{
	struct ksrv_server *srv = conn->srv;
	struct sock *sk = conn->sock->sk;
	read_descriptor_t desc = { .arg.data = conn, .count = KSRV_PUMP_BUDGET };

	lockdep_assert_held(&sk->sk_lock.slock);
	if (conn->flags)
		return 0;
	if (unlikely(conn->blocked)) {
		if (!sk_stream_memory_free(sk) || ksrv_hook_room_gone()) {
			/* write_space had found room, and it is gone: ask to be called again. */
			ksrv_wait_for_room(conn);
			return 0;
		}
		conn->blocked = false;
	}
	pump_begin(conn);
	/*
	 * tcp_read_sock() never goes past an urgent byte that is marked. Without the mark it is a
	 * byte like any other, as SOCK_URGINLINE promises.
	 */
	if (unlikely(tcp_sk(sk)->urg_data))
		tcp_sk(sk)->urg_data = 0;
	if ((likely(!conn->unfinished) || resume(conn)) &&
	    !skb_queue_empty(&sk->sk_receive_queue)) {
		tcp_read_sock(sk, &desc, pump_skb);
		if (unlikely(!desc.count) && !skb_queue_empty(&sk->sk_receive_queue))
			queue_io(conn);
	}
	if (desc.written) {
		ksrv_count(srv, KSRV_BYTES_IN, desc.written);
		if (softirq)
			ksrv_count(srv, KSRV_FASTPATH_BYTES, desc.written);
		if (likely(!conn->finish))
			WRITE_ONCE(conn->stamp, jiffies);
	}
	if (unlikely(sk->sk_shutdown || sk->sk_err || sk->sk_state == TCP_CLOSE))
		look_for_end(conn, sk);
	pump_end(conn);
	return KSRV_PUMP_BUDGET - desc.count;
}

/*
 * Pumps a connection that was queued. Bottom halves are off before and after. Without the lock
 * the connection must not be touched any more.
 */
static size_t pump_queued(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;
	size_t used = 0;

	bh_lock_sock(sk);
	if (unlikely(sock_owned_by_user(sk))) {
		bh_unlock_sock(sk);
		local_bh_enable();
		ksrv_lock(sk);
	}
	conn->queued = false;
	if (likely(!conn->detached))
		used = ksrv_pump(conn, false);
	else
		queue_work(conn->srv->release_wq, &conn->release); /* which waited for us */
	bh_unlock_sock(sk);
	return used;
}

/*
 * Pumps what is ready, to a budget. With bottom halves off throughout, the answers of all go out
 * together after it. Its cost is that of connections and bytes; peers who cut those into thousands
 * of fragments are kept within bounds by the clock.
 */
static void pump_ready(struct ksrv_cpu *cpu)
{
	unsigned long until = jiffies + KSRV_IO_TIME;
	int budget = KSRV_IO_BUDGET;
	struct ksrv_conn *conn;

	local_bh_disable();
	while (budget > 0 && time_before(jiffies, until)) {
		if (!cpu->rest)
			cpu->rest = llist_reverse_order(llist_del_all(&cpu->ready));
		if (!cpu->rest)
			break;
		conn = llist_entry(cpu->rest, struct ksrv_conn, ready);
		cpu->rest = cpu->rest->next;
		budget -= 1 + pump_queued(conn) / KSRV_IO_COST;
	}
	local_bh_enable();
}

/**
 * ksrv_io_worker() - the I/O worker of a CPU: pumps what the receive path could not
 * @data: its ksrv_cpu
 *
 * Ends by kthread_stop(), when there are no connections any more.
 *
 * Return: 0.
 */
int ksrv_io_worker(void *data)
{
	struct ksrv_cpu *cpu = data;

	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!cpu->rest && llist_empty(&cpu->ready) && !kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
		ksrv_hook_io();
		pump_ready(cpu);
		/* Clients may keep it from sleeping, which synchronize_rcu_tasks() waits for. */
		cond_resched_tasks_rcu_qs();
	}
	return 0;
}

/**
 * ksrv_later_work() - runs work(), or pumps again where memory was short
 * @work: ksrv_conn.later
 */
void ksrv_later_work(struct work_struct *work)
{
	struct ksrv_conn *conn = container_of(to_delayed_work(work), struct ksrv_conn, later);
	struct sock *sk = conn->sock->sk;
	bool slept = test_bit(KSRV_C_ASLEEP, &conn->flags);

	if (slept)
		conn->srv->svc->ops->work(conn);
	ksrv_lock(sk);
	if (slept) {
		conn->deferred = false;
		clear_bit(KSRV_C_ASLEEP, &conn->flags);
	}
	ksrv_pump(conn, false);
	ksrv_unlock(sk);
}

/*
 * The callbacks of a connected socket. The socket's spinlock is held, or a process owns the
 * socket and works off its backlog; either keeps ksrv_lock(), and with it detaching, away, so
 * what sk_user_data names stays for the call.
 */
void ksrv_data_ready(struct sock *sk)
{
	struct ksrv_conn *conn = ksrv_conn_of(sk);

	/* A BPF program that a send runs can have TCP call this amid the pump. */
	if (!conn || unlikely(conn->in_pump))
		return;
	/*
	 * tcp_urg() calls this in the middle of a segment's processing, with the mark set; leave
	 * that to the worker. Newer kernels also do where memory for a segment is short: that
	 * one is not queued yet then, nor has rcv_nxt moved, so what is queued can be pumped.
	 */
	if (ksrv_uint(conn->srv->svc->fastpath) && !sock_owned_by_user(sk) &&
	    !tcp_sk(sk)->urg_data && !ksrv_hook_owned())
		ksrv_pump(conn, true);
	else
		queue_io(conn);
}

/* tcp_sendmsg_locked() may call this inside the pump, which looks at the room itself. */
void ksrv_write_space(struct sock *sk)
{
	struct ksrv_conn *conn = ksrv_conn_of(sk);

	if (!conn || conn->in_pump || !sk_stream_is_writeable(sk))
		return;
	clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	if (conn->blocked)
		queue_io(conn);
}

/*
 * Serves state_change and error_report. A FIN is left to the pump, which ends the connection when
 * all before it was taken; it never pumps itself, as fast open calls this in SYN_RECV.
 */
void ksrv_state_change(struct sock *sk)
{
	struct ksrv_conn *conn = ksrv_conn_of(sk);

	if (!conn || sk->sk_state != TCP_CLOSE)
		return;
	/* What it lingered for has come; or the peer, who had said all, wants no more: by RST. */
	if (conn->finish == KSRV_F_LINGERING &&
	    (!sk->sk_err || (conn->eof_told && sk->sk_err == ECONNRESET)))
		ksrv_conn_leave(conn);
	else
		end_broken(conn, sk);
}
