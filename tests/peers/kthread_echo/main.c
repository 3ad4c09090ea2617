// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kthread_echo - an echo server in the kernel with a thread for each connection, which blocks in
 * kernel_recvmsg(): the first design that anybody thinks of, to be measured against.
 *
 * A thread whose client has gone puts itself into a list and waits to be stopped, by the thread
 * that accepts or by unloading. Unloading shuts every socket down, which wakes whoever blocks.
 */
#include <linux/in.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/nsproxy.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <net/sock.h>

#define BUFFER (64 * 1024)

static ushort port = 12350;
module_param(port, ushort, 0444);
MODULE_PARM_DESC(port, "TCP port to listen on, IPv4, in the network namespace of who loads it");

static int backlog = 4096;
module_param(backlog, int, 0444);
MODULE_PARM_DESC(backlog, "accept queue");

/**
 * struct client - a connection and its thread
 * @node: in clients, or in ended
 * @sock: its socket, released by who stops the thread
 * @task: its thread
 * @buf: what it reads into
 */
struct client {
	struct list_head node;
	struct socket *sock;
	struct task_struct *task;
	char *buf;
};

static LIST_HEAD(clients);
static LIST_HEAD(ended);
static DEFINE_MUTEX(lists); /* guards both, and every node */
static struct socket *listener;
static struct task_struct *acceptor;

static int echo(struct client *c)
{
	struct msghdr msg = { .msg_flags = 0 };
	struct kvec vec = { .iov_base = c->buf, .iov_len = BUFFER };
	int at, put, got = kernel_recvmsg(c->sock, &msg, &vec, 1, BUFFER, 0);

	for (at = 0; at < got; at += put) {
		vec = (struct kvec){ .iov_base = c->buf + at, .iov_len = got - at };
		msg = (struct msghdr){ .msg_flags = MSG_NOSIGNAL };
		put = kernel_sendmsg(c->sock, &msg, &vec, 1, got - at);
		if (put <= 0)
			return -EPIPE;
	}
	return got;
}

static int serve(void *arg)
{
	struct client *c = arg;

	while (!kthread_should_stop() && echo(c) > 0)
		;
	/* FIN now, not when somebody comes to stop the thread. */
	kernel_sock_shutdown(c->sock, SHUT_RDWR);
	mutex_lock(&lists);
	list_move(&c->node, &ended);
	mutex_unlock(&lists);
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static void client_free(struct client *c)
{
	sock_release(c->sock);
	kvfree(c->buf);
	kfree(c);
}

/* Stops who is in @list, and frees them. */
static void reap(struct list_head *list)
{
	struct client *c;

	for (;;) {
		mutex_lock(&lists);
		c = list_first_entry_or_null(list, struct client, node);
		if (c)
			list_del_init(&c->node);
		mutex_unlock(&lists);
		if (!c)
			return;
		kernel_sock_shutdown(c->sock, SHUT_RDWR);
		kthread_stop(c->task);
		/* It may have put itself into the other list meanwhile. */
		mutex_lock(&lists);
		list_del(&c->node);
		mutex_unlock(&lists);
		client_free(c);
	}
}

static void client_open(struct socket *sock)
{
	struct client *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c) {
		sock_release(sock);
		return;
	}
	c->sock = sock;
	c->buf = kvmalloc(BUFFER, GFP_KERNEL);
	if (c->buf) {
		c->task = kthread_create(serve, c, "kthread_echo");
		if (!IS_ERR(c->task)) {
			mutex_lock(&lists);
			list_add(&c->node, &clients);
			mutex_unlock(&lists);
			wake_up_process(c->task);
			return;
		}
	}
	client_free(c);
}

static int accept_all(void *unused)
{
	struct socket *sock;
	int err;

	while (!kthread_should_stop()) {
		err = kernel_accept(listener, &sock, 0);
		if (!err)
			client_open(sock);
		else
			schedule_timeout_interruptible(HZ / 100);
		reap(&ended);
	}
	return 0;
}

static int __init kthread_echo_init(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	int err = sock_create_kern(current->nsproxy->net_ns, AF_INET, SOCK_STREAM, IPPROTO_TCP,
				   &listener);

	if (err)
		return err;
	sock_set_reuseaddr(listener->sk);
	tcp_sock_set_nodelay(listener->sk);
	err = kernel_bind(listener, (void *)&addr, sizeof(addr));
	if (!err)
		err = kernel_listen(listener, backlog);
	if (err)
		goto err_release;
	tcp_sock_set_quickack(listener->sk, 0); /* inherited; kecho does so too */
	acceptor = kthread_run(accept_all, NULL, "kthread_echo");
	err = PTR_ERR_OR_ZERO(acceptor);
	if (err)
		goto err_release;
	return 0;

err_release:
	sock_release(listener);
	return err;
}

static void __exit kthread_echo_exit(void)
{
	kernel_sock_shutdown(listener, SHUT_RDWR);
	kthread_stop(acceptor);
	reap(&clients);
	reap(&ended);
	sock_release(listener);
}

module_init(kthread_echo_init);
module_exit(kthread_echo_exit);
MODULE_DESCRIPTION("TCP echo server with a kernel thread for each connection, to measure against");
MODULE_LICENSE("Dual MIT/GPL");
