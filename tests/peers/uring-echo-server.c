// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * uring-echo-server - one thread and io_uring, with what is known to help it: a ring of a single
 * issuer with deferred task work, multishot accept, multishot receive into provided buffers, and
 * one system call for all that is ready.
 *
 * A client's buffers go out in the order they were filled, one send at a time, and each is given
 * back when it is sent. Where none is left, receiving stops until one is.
 *
 * With -f, which has to be the last option, clients are the ring's own files, not the process's:
 * cheaper to make, but Linux 6.1 closes them up to a second later, many at once.
 */
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"
#include "util.h"

#define CLIENTS 32768
#define BUFFERS 4096 /* a power of two */
#define SIZE (64 * 1024)
#define ENTRIES 4096
#define GROUP 0
#define PIECES 64 /* buffers in one send at most */

enum op { ACCEPT, RECV, SEND, CLOSE };

struct client {
	bool receiving; /* a multishot receive is armed */
	bool ended; /* no more comes */
	bool waits; /* for a buffer, in the list of those */
	bool listed; /* in the list of those with something to send */
	unsigned int sending; /* buffers that a send is under way for */
	int first, last; /* buffers that are filled, linked; -1 is none */
	struct iovec iov[PIECES];
	struct msghdr msg;
};

static struct io_uring ring;
static bool direct; /* clients are files of the ring's */
static struct io_uring_buf_ring *provided;
static char *memory;
static int next_of[BUFFERS]; /* behind it in a client's list */
static unsigned int length_of[BUFFERS];
static struct client *clients; /* by descriptor */
static int starved[CLIENTS]; /* a ring of who waits for a buffer */
static unsigned int starved_head, starved_tail;
static int to_send[CLIENTS]; /* who received something: sent once all that came is known */
static unsigned int to_send_count;
static unsigned int spare; /* buffers that the kernel has */

static char *buffer(int id)
{
	return memory + (size_t)id * SIZE;
}

static struct io_uring_sqe *new_sqe(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	if (!sqe) {
		io_uring_submit(&ring);
		sqe = io_uring_get_sqe(&ring);
		if (!sqe)
			die("the submission queue is full");
	}
	return sqe;
}

/* Behind the prep function, which clears it. */
static void set_data(struct io_uring_sqe *sqe, enum op op, int index)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)index << 8 | op);
}

static void arm_accept(int listener)
{
	struct io_uring_sqe *sqe = new_sqe();

	if (direct)
		io_uring_prep_multishot_accept_direct(sqe, listener, NULL, NULL, 0);
	else
		io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, 0);
	set_data(sqe, ACCEPT, listener);
}

static void arm_recv(int index)
{
	struct io_uring_sqe *sqe = new_sqe();

	io_uring_prep_recv_multishot(sqe, index, NULL, 0, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT | (direct ? IOSQE_FIXED_FILE : 0);
	sqe->buf_group = GROUP;
	set_data(sqe, RECV, index);
	clients[index].receiving = true;
}

static void arm_send(int index)
{
	struct client *c = &clients[index];
	struct io_uring_sqe *sqe = new_sqe();
	unsigned int n = 0;
	int id;

	for (id = c->first; id >= 0 && n < PIECES; id = next_of[id], n++)
		c->iov[n] = (struct iovec){ .iov_base = buffer(id), .iov_len = length_of[id] };
	c->sending = n;
	if (n == 1) {
		io_uring_prep_send(sqe, index, c->iov[0].iov_base, c->iov[0].iov_len,
				   MSG_WAITALL | MSG_NOSIGNAL);
	} else {
		c->msg = (struct msghdr){ .msg_iov = c->iov, .msg_iovlen = n };
		io_uring_prep_sendmsg(sqe, index, &c->msg, MSG_WAITALL | MSG_NOSIGNAL);
	}
	sqe->flags |= direct ? IOSQE_FIXED_FILE : 0;
	set_data(sqe, SEND, index);
}

static void send_later(int index)
{
	if (clients[index].listed)
		return;
	clients[index].listed = true;
	to_send[to_send_count++] = index;
}

static void give_back(int id)
{
	io_uring_buf_ring_add(provided, buffer(id), SIZE, id, BUFFERS - 1, 0);
	io_uring_buf_ring_advance(provided, 1);
	spare++;
}

/* Closes a client whose last operation is through. */
static void close_if_done(int index)
{
	struct client *c = &clients[index];
	struct io_uring_sqe *sqe;

	if (!c->ended || c->receiving || c->sending || c->waits || c->listed)
		return;
	while (c->first >= 0) {
		int id = c->first;

		c->first = next_of[id];
		give_back(id);
	}
	sqe = new_sqe();
	if (direct)
		io_uring_prep_close_direct(sqe, index);
	else
		io_uring_prep_close(sqe, index);
	set_data(sqe, CLOSE, index);
	c->ended = false;
}

static void send_all(void)
{
	unsigned int i;

	for (i = 0; i < to_send_count; i++) {
		int index = to_send[i];
		struct client *c = &clients[index];

		c->listed = false;
		if (c->first >= 0 && !c->sending)
			arm_send(index);
		else
			close_if_done(index);
	}
	to_send_count = 0;
}

static void on_accept(const struct io_uring_cqe *cqe, int listener)
{
	if (cqe->res >= CLIENTS) {
		close(cqe->res);
	} else if (cqe->res >= 0) {
		struct client *c = &clients[cqe->res];

		memset(c, 0, offsetof(struct client, iov));
		c->first = c->last = -1;
		arm_recv(cqe->res);
	}
	if (!(cqe->flags & IORING_CQE_F_MORE))
		arm_accept(listener);
}

static void on_recv(const struct io_uring_cqe *cqe, int index)
{
	struct client *c = &clients[index];

	if (!(cqe->flags & IORING_CQE_F_MORE))
		c->receiving = false;
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		int id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

		spare--;
		if (cqe->res > 0) {
			length_of[id] = cqe->res;
			next_of[id] = -1;
			if (c->first < 0)
				c->first = id;
			else
				next_of[c->last] = id;
			c->last = id;
			send_later(index);
		} else {
			give_back(id);
		}
	}
	if (cqe->res == -ENOBUFS && spare) {
		arm_recv(index); /* some have come back meanwhile */
	} else if (cqe->res == -ENOBUFS) {
		c->waits = true;
		starved[starved_tail++ % CLIENTS] = index;
	} else if (cqe->res <= 0) {
		c->ended = true;
	} else if (!c->receiving) {
		arm_recv(index);
	}
	close_if_done(index);
}

static void on_send(const struct io_uring_cqe *cqe, int index)
{
	struct client *c = &clients[index];
	unsigned int n, freed = c->sending;
	size_t wanted = 0;
	int id;

	for (n = 0; n < c->sending; n++) {
		id = c->first;
		c->first = next_of[id];
		wanted += length_of[id];
		give_back(id);
	}
	c->sending = 0;
	if (cqe->res < 0 || (size_t)cqe->res < wanted) {
		/* The client is gone; its receive ends too. */
		while (c->first >= 0) {
			id = c->first;
			c->first = next_of[id];
			give_back(id);
		}
		c->ended = true;
	}
	if (c->first >= 0)
		arm_send(index);
	else
		close_if_done(index);
	while (freed-- && starved_head != starved_tail) {
		index = starved[starved_head++ % CLIENTS];
		clients[index].waits = false;
		arm_recv(index);
	}
}

static void open_ring(void)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_CQSIZE,
		.cq_entries = 2 * CLIENTS,
	};
	struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = GROUP };
	int i, err = io_uring_queue_init_params(ENTRIES, &ring, &params);

	if (err)
		die("io_uring_queue_init_params: %s", strerror(-err));
	io_uring_register_ring_fd(&ring);
	if (posix_memalign((void **)&provided, sysconf(_SC_PAGESIZE),
			   BUFFERS * sizeof(struct io_uring_buf)) ||
	    posix_memalign((void **)&memory, sysconf(_SC_PAGESIZE), (size_t)BUFFERS * SIZE))
		die("out of memory");
	err = direct ? io_uring_register_files_sparse(&ring, CLIENTS) : 0;
	if (err)
		die("io_uring_register_files_sparse: %s", strerror(-err));
	clients = calloc(CLIENTS, sizeof(*clients));
	if (!clients)
		die("out of memory");
	memset(memory, 0,
	       (size_t)BUFFERS * SIZE); /* or the first message in each page pays for it */
	reg.ring_addr = (uintptr_t)provided;
	err = io_uring_register_buf_ring(&ring, &reg, 0);
	if (err)
		die("io_uring_register_buf_ring: %s", strerror(-err));
	io_uring_buf_ring_init(provided);
	for (i = 0; i < BUFFERS; i++)
		give_back(i);
}

int main(int argc, char **argv)
{
	struct io_uring_cqe *cqe;
	unsigned int head, n;
	int listener;

	direct = argc > 1 && !strcmp(argv[argc - 1], "-f");
	argc -= direct;
	listener = server_open(argc, argv, "12349");
	open_ring();
	arm_accept(listener);
	for (;;) {
		io_uring_submit_and_wait(&ring, 1);
		n = 0;
		io_uring_for_each_cqe(&ring, head, cqe)
		{
			int index = cqe->user_data >> 8;

			switch ((enum op)(cqe->user_data & 255)) {
			case ACCEPT:
				on_accept(cqe, index);
				break;
			case RECV:
				on_recv(cqe, index);
				break;
			case SEND:
				on_send(cqe, index);
				break;
			case CLOSE:
				break;
			}
			n++;
		}
		io_uring_cq_advance(&ring, n);
		send_all();
	}
}
