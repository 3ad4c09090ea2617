// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_server.c - starts and stops the server, with the module or with its network namespace.
 */
#include <linux/kthread.h>
#include <linux/nsproxy.h>
#include <linux/slab.h>

#include "ksrv_impl.h"

/*
 * The module's one server, and its namespace, which is only compared. Set by ksrv_register() before
 * the pernet operations are there; cleared by the exit operation, which runs once for that
 * namespace. It may run for others at the same time: one whose set-up failed is undone while
 * another goes.
 */
static struct ksrv_server *the_server; /* under the_server_mutex, but in ksrv_register() */
static struct net *the_net;
/* Keeps the_server from going with its namespace where no lock of the namespaces' does. */
static DEFINE_MUTEX(the_server_mutex);

static void free_cpus(struct ksrv_server *srv)
{
	struct page_frag *frag;
	int cpu;

	for_each_possible_cpu(cpu) {
		frag = &per_cpu_ptr(srv->cpu, cpu)->frag;
		if (frag->page)
			put_page(frag->page);
	}
	free_percpu(srv->cpu);
}

static int init_cpus(struct ksrv_server *srv)
{
	const char *const *own = srv->svc->counters;
	struct ksrv_cpu *mine;
	unsigned int n = 0;
	int cpu;

	while (own && own[n])
		n++;
	srv->cpu = (struct ksrv_cpu __percpu *)__alloc_percpu(struct_size(mine, own, n),
							      __alignof__(*mine));
	if (!srv->cpu)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		mine = per_cpu_ptr(srv->cpu, cpu);
		init_llist_head(&mine->ready);
		init_llist_head(&mine->left);
		INIT_DELAYED_WORK(&mine->leave, ksrv_conn_leave_work);
	}
	return 0;
}

static void stop_workers(struct ksrv_server *srv)
{
	struct task_struct *worker;
	int cpu;

	for_each_possible_cpu(cpu) {
		worker = per_cpu_ptr(srv->cpu, cpu)->worker;
		if (worker)
			kthread_stop(worker);
	}
}

/* A worker that loses its CPU goes on elsewhere, bound no more. */
static int start_workers(struct ksrv_server *srv)
{
	struct ksrv_cpu *spare = NULL, *mine;
	struct task_struct *worker;
	int cpu;

	for_each_online_cpu(cpu) {
		mine = per_cpu_ptr(srv->cpu, cpu);
		worker = kthread_create_on_node(ksrv_io_worker, mine, NUMA_NO_NODE, "%s_io/%d",
						srv->svc->name, cpu);
		if (IS_ERR(worker)) {
			pr_err("cannot start the I/O worker of CPU %d: error %ld\n", cpu,
			       PTR_ERR(worker));
			stop_workers(srv);
			return PTR_ERR(worker);
		}
		if (ksrv_uint(srv->svc->bench))
			kthread_bind(worker, cpu);
		mine->worker = worker;
		wake_up_process(worker);
		spare = mine;
	}
	for_each_possible_cpu(cpu) {
		mine = per_cpu_ptr(srv->cpu, cpu);
		mine->io = mine->worker ? mine : spare;
	}
	return 0;
}

static int server_init(struct ksrv_server *srv)
{
	const char *name = srv->svc->name;
	int err;

	mutex_init(&srv->conns_mutex);
	INIT_LIST_HEAD(&srv->conns);
	init_waitqueue_head(&srv->idle);
	INIT_DELAYED_WORK(&srv->sweep, ksrv_sweep_work);

	err = init_cpus(srv);
	if (err)
		return err;
	err = ksrv_peer_init(srv);
	if (err)
		goto err_cpu;
	err = -ENOMEM;
	srv->cache = kmem_cache_create(name, sizeof(struct ksrv_conn) + srv->svc->ops->conn_size, 0,
				       0, NULL);
	if (!srv->cache)
		goto err_peer;
	err = start_workers(srv);
	if (err)
		goto err_cache;
	err = -ENOMEM;
	srv->sweep_wq = alloc_workqueue("%s_sweep", WQ_UNBOUND, 0, name);
	if (!srv->sweep_wq)
		goto err_workers;
	srv->work_wq = alloc_workqueue("%s_work", WQ_UNBOUND, 0, name);
	if (!srv->work_wq)
		goto err_sweep_wq;
	/* Peers who reset all their connections at once are to make no thread for each. */
	srv->release_wq = alloc_workqueue("%s_release", WQ_UNBOUND, KSRV_RELEASERS, name);
	if (!srv->release_wq)
		goto err_work_wq;
	err = ksrv_stat_init(srv);
	if (err)
		goto err_release_wq;
	err = ksrv_listen_start(srv);
	if (err)
		goto err_stat;
	return 0;

err_stat:
	ksrv_stat_uninit(srv);
err_release_wq:
	destroy_workqueue(srv->release_wq);
err_work_wq:
	destroy_workqueue(srv->work_wq);
err_sweep_wq:
	destroy_workqueue(srv->sweep_wq);
err_workers:
	stop_workers(srv);
err_cache:
	kmem_cache_destroy(srv->cache);
err_peer:
	ksrv_peer_uninit(srv);
err_cpu:
	free_cpus(srv);
	return err;
}

/* Where all is said and heard, what the peer has yet to read needs nobody here but core TCP. */
static enum ksrv_end last_end(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;
	bool done;

	ksrv_lock(sk);
	done = conn->finish == KSRV_F_LINGERING && conn->eof_told;
	ksrv_unlock(sk);
	return done ? KSRV_END_ORDERLY : KSRV_END_RESET;
}

static void end_all(struct ksrv_server *srv)
{
	struct ksrv_conn *conn;

	mutex_lock(&srv->conns_mutex);
	list_for_each_entry(conn, &srv->conns, node) {
		cond_resched();
		if (&conn->node != &srv->swept) /* else it is no connection */
			ksrv_conn_end(conn, last_end(conn));
	}
	mutex_unlock(&srv->conns_mutex);
}

/* No client is served any more. */
static void server_stop(struct ksrv_server *srv)
{
	if (!srv->listener)
		return;
	ksrv_listen_stop(srv);
	end_all(srv);
}

/*
 * Who can still reach the server, and why that ends: softirqs through the listener (its callbacks
 * are gone after ksrv_listen_stop()), the accept worker (stopped there), connections (ended,
 * each counts itself out when it is freed), the sweep (cancelled when there are no connections
 * to start it again), I/O workers (which have no connections left), readers of the statistics
 * (proc waits for them).
 */
static void server_uninit(struct ksrv_server *srv)
{
	server_stop(srv);
	wait_event(srv->idle, !atomic_read(&srv->active));
	ksrv_conn_flush_ended(srv); /* may be queued for connections that its last run came upon */
	cancel_delayed_work_sync(&srv->sweep);
	ksrv_stat_uninit(srv);
	destroy_workqueue(srv->release_wq);
	destroy_workqueue(srv->work_wq);
	destroy_workqueue(srv->sweep_wq);
	stop_workers(srv);
	kmem_cache_destroy(srv->cache);
	ksrv_peer_uninit(srv);
	free_cpus(srv);
}

/* Runs when the server's namespace goes, and for each namespace when the module does. */
static void __net_exit server_net_exit(struct net *net)
{
	struct ksrv_server *srv;

	/* Without the mutex: who reads the statistics has it for as long as his memory takes. */
	if (READ_ONCE(the_net) != net)
		return;
	mutex_lock(&the_server_mutex);
	srv = the_server;
	the_server = NULL;
	WRITE_ONCE(the_net, NULL);
	mutex_unlock(&the_server_mutex);
	server_uninit(srv);
	pr_info("no longer listening on port %u\n", ksrv_uint(srv->svc->port));
	kfree(srv);
}

/* Of the device kind: their exit operations run while the namespace still has its devices. */
static struct pernet_operations server_net_ops = {
	.exit = server_net_exit,
};

int ksrv_register(const struct ksrv_service *svc)
{
	struct ksrv_server *srv = kzalloc(sizeof(*srv), GFP_KERNEL);
	int err;

	if (!srv)
		return -ENOMEM;
	srv->svc = svc;
	srv->net = current->nsproxy->net_ns; /* insmod's, which is alive as long as this runs */
	err = server_init(srv);
	if (err)
		goto err_free;
	the_server = srv;
	WRITE_ONCE(the_net, srv->net);
	err = register_pernet_device(&server_net_ops);
	if (err)
		goto err_server;
	pr_info("%s to whoever reaches port %u of addr=%s, without authentication; addr=127.0.0.1 or addr=::1 keeps it to this machine\n",
		svc->greeting, ksrv_uint(svc->port), *svc->addr);
	return 0;

err_server:
	the_server = NULL;
	WRITE_ONCE(the_net, NULL);
	server_uninit(srv);
err_free:
	kfree(srv);
	return err;
}

/*
 * Clients go at once, whatever holds up the rest. The file goes next: while
 * unregister_pernet_device() waits for a reader, whose own memory may keep it for long, nobody on
 * the machine can make a namespace. The namespace cannot be going while somebody reads, who holds
 * it, so its exit does not wait here.
 */
void ksrv_unregister(void)
{
	mutex_lock(&the_server_mutex);
	if (the_server) {
		server_stop(the_server);
		ksrv_stat_uninit(the_server);
	}
	mutex_unlock(&the_server_mutex);
	unregister_pernet_device(&server_net_ops);
}
