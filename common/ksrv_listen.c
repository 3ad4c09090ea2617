// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_listen.c - the listening socket and the accept worker.
 */
#include <linux/inet.h>
#include <linux/kthread.h>
#include <linux/tcp.h>
#include <net/ipv6.h>
#include <net/tcp.h>

#include "address.h"
#include "ksrv_impl.h"

/* The module's one listener. Set while these callbacks are its, under its sk_callback_lock. */
static struct sock *listening;

/*
 * Callbacks of the listener. Accepted sockets inherit them, and a child's segments call them
 * before it is accepted, under the child's lock: only the listener is served. A child may have a
 * sk_user_data of somebody else's, as of a BPF program that puts sockets into a sockmap when they
 * are established. The listener's is read under sk_callback_lock.
 */
static void wake_accept(struct sock *sk)
{
	struct ksrv_server *srv;
	void *tagged;

	if (READ_ONCE(listening) != sk)
		return;
	read_lock_bh(&sk->sk_callback_lock);
	tagged = rcu_dereference_protected(__sk_user_data(sk),
					   lockdep_is_held(&sk->sk_callback_lock));
	srv = (struct ksrv_server *)((uintptr_t)tagged & SK_USER_DATA_PTRMASK);
	if (srv)
		wake_up_process(srv->acceptor);
	read_unlock_bh(&sk->sk_callback_lock);
}

static void listen_data_ready(struct sock *sk)
{
	if (sk->sk_state == TCP_LISTEN)
		wake_accept(sk);
}

/* A listener that "ss -K" has killed goes to CLOSE; the accept worker finds out and says so. */
static void listen_state_change(struct sock *sk)
{
	if (sk->sk_state == TCP_CLOSE)
		wake_accept(sk);
}

/* Whether kernel_accept() has something to give, or to say. */
static bool accept_due(struct ksrv_server *srv)
{
	struct sock *sk = srv->listener->sk;

	return !reqsk_queue_empty(&inet_csk(sk)->icsk_accept_queue) ||
	       (READ_ONCE(sk->sk_state) != TCP_LISTEN && !srv->closed_told);
}

static int accept_one(struct ksrv_server *srv, struct socket **sock)
{
	if (ksrv_hook_accept_fails())
		return -ENOMEM;
	return kernel_accept(srv->listener, sock, SOCK_NONBLOCK);
}

/* Takes who is there, to a budget. */
static void accept_some(struct ksrv_server *srv)
{
	struct socket *sock;
	int err, i;

	/* With nobody there kernel_accept() would make a socket first, and free it. */
	for (i = 0; i < KSRV_ACCEPT_BUDGET && accept_due(srv); i++) {
		err = accept_one(srv, &sock);
		switch (err) {
		case 0:
			srv->accept_pause = 0;
			ksrv_conn_open(srv, sock);
			break;
		case -EAGAIN:
			return;
		case -EINVAL:
			srv->closed_told = true;
			pr_err("the listening socket was closed from outside; reload the module to serve new clients\n");
			return;
		case -ECONNABORTED:
		case -EINTR:
			ksrv_count_bh(srv, KSRV_ERRORS);
			break;
		default:
			/* Nobody calls when memory is there again. */
			ksrv_count_bh(srv, KSRV_ERRORS);
			srv->accept_pause = clamp_t(unsigned long, 2 * srv->accept_pause,
						    KSRV_RETRY_MIN, KSRV_RETRY_MAX);
			return;
		}
	}
}

/* Sleeps for @left jiffies, whoever comes; or until the worker is to stop. */
static void pause_for(long left)
{
	while (left > 0) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		left = schedule_timeout(left);
	}
	__set_current_state(TASK_RUNNING);
}

/* The accept worker: a thread of its own, as to queue work costs 1 % of a connection. */
static int accept_worker(void *data)
{
	struct ksrv_server *srv = data;

	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!accept_due(srv) && !kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
		accept_some(srv);
		if (unlikely(srv->accept_pause))
			pause_for(srv->accept_pause);
		/* Clients may keep it from sleeping, which synchronize_rcu_tasks() waits for. */
		cond_resched_tasks_rcu_qs();
	}
	return 0;
}

/*
 * Whether @ss is what all of @addr says: inet_pton_with_scope() makes no use of a port behind an
 * address, nor of a scope behind one that takes none, and more would be served than was asked for.
 * It also takes zeros that others do not.
 */
static bool is_all(const char *addr, const struct sockaddr_storage *ss)
{
	char text[sizeof("255.255.255.255")];
	struct in6_addr in6 = {};
	const char *end;

	if (ss->ss_family == AF_INET) {
		snprintf(text, sizeof(text), "%pI4", &((const struct sockaddr_in *)ss)->sin_addr);
		return !strcmp(addr, text);
	}
	in6_pton(addr, -1, in6.s6_addr, '%', &end);
	if (!address_is_plain(addr, end - addr))
		return false;
	/* Of a scope it reads so many characters. */
	return !*end || (*end == '%' && ipv6_addr_type(&in6) & IPV6_ADDR_LINKLOCAL &&
			 strlen(end + 1) < IFNAMSIZ);
}

/* Parses addr= and port= into @ss. */
static int parse_address(struct ksrv_server *srv, struct sockaddr_storage *ss)
{
	const char *addr = *srv->svc->addr;
	char port[8];
	int err;

	snprintf(port, sizeof(port), "%u", ksrv_uint(srv->svc->port));
	err = inet_pton_with_scope(srv->net, AF_UNSPEC, addr, port, ss);
	if (err || !is_all(addr, ss)) {
		pr_err("addr=%s is neither an IPv4 nor an IPv6 address%s\n", addr,
		       strchr(addr, '%') ? " with the scope of an interface that is there" : "");
		return -EINVAL;
	}
	return 0;
}

/* Makes the socket and binds it. One line in the log if that cannot be done. */
static int bind_socket(struct ksrv_server *srv, struct sockaddr_storage *ss)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	bool dual = ss->ss_family == AF_INET6 && ipv6_addr_any(&in6->sin6_addr);
	struct sock *sk;
	int err;

	err = sock_create_kern(srv->net, ss->ss_family, SOCK_STREAM, IPPROTO_TCP, &srv->listener);
	if (err == -EAFNOSUPPORT && dual) {
		/* IPv6 is off on this machine: "::" then means all of IPv4. */
		any.sin_port = in6->sin6_port;
		memcpy(ss, &any, sizeof(any));
		err = sock_create_kern(srv->net, AF_INET, SOCK_STREAM, IPPROTO_TCP, &srv->listener);
	}
	if (err)
		return err;
	sk = srv->listener->sk;
	/*
	 * Accepted sockets have the listener's operations. Where a BPF program sets SO_RCVLOWAT,
	 * TCP calls data_ready, to wake a process; but amid its own work, where nobody may pump.
	 */
	srv->ops = *srv->listener->ops;
	srv->ops.set_rcvlowat = NULL;
	srv->listener->ops = &srv->ops;
	sock_set_reuseaddr(sk);
	tcp_sock_set_nodelay(sk);
	lock_sock(sk);
	sock_set_flag(sk, SOCK_URGINLINE);
	if (dual)
		sk->sk_ipv6only = false; /* whatever net.ipv6.bindv6only says */
	release_sock(sk);
	err = kernel_bind(srv->listener, (void *)ss,
			  ss->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
						    : sizeof(struct sockaddr_in));
	if (err) {
		sock_release(srv->listener);
		srv->listener = NULL;
	}
	return err;
}

static void say_why_not(struct ksrv_server *srv, int err)
{
	const char *addr = *srv->svc->addr;
	unsigned int port = ksrv_uint(srv->svc->port);

	switch (err) {
	case -EADDRINUSE:
		pr_err("cannot listen: port=%u on addr=%s is in use\n", port, addr);
		break;
	case -EADDRNOTAVAIL:
		pr_err("cannot listen: addr=%s is not an address of this machine\n", addr);
		break;
	default:
		pr_err("cannot listen: addr=%s port=%u: error %d\n", addr, port, err);
	}
}

/**
 * ksrv_listen_start() - open the listening socket; clients may come before this returns
 * @srv: the server, complete but for this
 *
 * Return: 0 or a negative errno, in which case the reason is in the log.
 */
int ksrv_listen_start(struct ksrv_server *srv)
{
	/* Without a scope unless addr= has one: bind() asks for it. */
	struct sockaddr_storage ss = {};
	struct sock *sk;
	int err;

	err = parse_address(srv, &ss);
	if (err)
		return err;
	err = bind_socket(srv, &ss);
	if (err)
		goto err_say;
	sk = srv->listener->sk;
	srv->acceptor = kthread_create(accept_worker, srv, "%s_accept", srv->svc->name);
	if (IS_ERR(srv->acceptor)) {
		err = PTR_ERR(srv->acceptor);
		pr_err("cannot start the accept worker: error %d\n", err);
		sock_release(srv->listener);
		return err;
	}
	write_lock_bh(&sk->sk_callback_lock);
	srv->data_ready = sk->sk_data_ready;
	srv->state_change = sk->sk_state_change;
	__rcu_assign_sk_user_data_with_flags(sk, srv, SK_USER_DATA_NOCOPY);
	sk->sk_data_ready = listen_data_ready;
	sk->sk_state_change = listen_state_change;
	WRITE_ONCE(listening, sk);
	write_unlock_bh(&sk->sk_callback_lock);
	err = kernel_listen(srv->listener, ksrv_uint(srv->svc->backlog));
	if (err)
		goto err_stop;
	/*
	 * Accepted sockets inherit it: the answer acknowledges the request, even one that came
	 * before its connection was accepted. kernel_listen() would reset it.
	 */
	tcp_sock_set_quickack(sk, 0);
	wake_up_process(srv->acceptor);
	return 0;

err_stop:
	ksrv_listen_stop(srv);
err_say:
	say_why_not(srv, err);
	return err;
}

/**
 * ksrv_listen_stop() - close the listening socket; no connection comes after this
 * @srv: the server
 *
 * Clients in the accept queue are reset. Process context; sleeps.
 */
void ksrv_listen_stop(struct ksrv_server *srv)
{
	struct sock *sk = srv->listener->sk;

	write_lock_bh(&sk->sk_callback_lock);
	WRITE_ONCE(listening, NULL);
	rcu_assign_sk_user_data(sk, NULL);
	sk->sk_data_ready = srv->data_ready;
	sk->sk_state_change = srv->state_change;
	write_unlock_bh(&sk->sk_callback_lock);
	kthread_stop(srv->acceptor);
	sock_release(srv->listener);
	srv->listener = NULL;
	/* A softirq may still be on its way through a callback that it had read before. */
	synchronize_rcu();
}
