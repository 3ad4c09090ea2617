// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * sockmap-echo-server - a BPF program that sends what a socket receives back on the same socket.
 *
 * Each client is put into a sockhash under its address and port; the stream verdict looks itself
 * up there. IPv4 clients only. User space accepts, closes, and sends back what came before the
 * socket was in the map, for which the program is not called.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"
#include "util.h"

#define CLIENTS 65536
#define EVENTS 256

/* As the program sees them: both in network byte order. */
struct key {
	__u32 addr;
	__u32 port;
};

#define LOAD(dst, src, where)                                  \
	((struct bpf_insn){ .code = BPF_LDX | BPF_W | BPF_MEM, \
			    .dst_reg = (dst),                  \
			    .src_reg = (src),                  \
			    .off = (where) })
#define STORE(dst, src, where)                                 \
	((struct bpf_insn){ .code = BPF_STX | BPF_W | BPF_MEM, \
			    .dst_reg = (dst),                  \
			    .src_reg = (src),                  \
			    .off = (where) })
#define MOVE(dst, src)      \
	((struct bpf_insn){ \
		.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (dst), .src_reg = (src) })
#define SET(dst, value) \
	((struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (dst), .imm = (value) })
#define ADD(dst, value) \
	((struct bpf_insn){ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (dst), .imm = (value) })
#define CALL(function) ((struct bpf_insn){ .code = BPF_JMP | BPF_CALL, .imm = (function) })
#define EXIT ((struct bpf_insn){ .code = BPF_JMP | BPF_EXIT })

static int map_fd, epoll_fd;

static void attach_program(void)
{
	struct bpf_insn program[] = {
		LOAD(BPF_REG_2, BPF_REG_1, offsetof(struct __sk_buff, remote_ip4)),
		LOAD(BPF_REG_3, BPF_REG_1, offsetof(struct __sk_buff, remote_port)),
		STORE(BPF_REG_10, BPF_REG_2, -8),
		STORE(BPF_REG_10, BPF_REG_3, -4),
		{ .code = BPF_LD | BPF_DW | BPF_IMM,
		  .dst_reg = BPF_REG_2,
		  .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = map_fd },
		{ 0 },
		MOVE(BPF_REG_3, BPF_REG_10),
		ADD(BPF_REG_3, -8),
		SET(BPF_REG_4, 0),
		CALL(BPF_FUNC_sk_redirect_hash),
		EXIT,
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SK_SKB, "echo", "Dual MIT/GPL", program,
			       sizeof(program) / sizeof(program[0]), NULL);

	if (fd < 0)
		die("bpf_prog_load: %s", strerror(errno));
	if (bpf_prog_attach(fd, map_fd, BPF_SK_SKB_STREAM_VERDICT, 0))
		die("bpf_prog_attach: %s", strerror(errno));
}

/* What the program was not called for. */
static void send_back(int fd)
{
	static char buf[64 * 1024];
	ssize_t got, put, at;

	while ((got = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		for (at = 0; at < got; at += put) {
			put = send(fd, buf + at, got - at, MSG_NOSIGNAL);
			if (put < 0)
				return;
		}
	}
}

static void on_accept(int listener)
{
	struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLET };
	struct sockaddr_in6
		peer; /* or, of a listener on an IPv4 address, a sockaddr_in: its port is at the same place */
	const struct sockaddr_in *in = (const struct sockaddr_in *)&peer;
	socklen_t len = sizeof(peer);
	struct key key;
	int fd = accept(listener, (struct sockaddr *)&peer, &len);

	if (fd < 0)
		return;
	if (peer.sin6_family == AF_INET)
		key.addr = in->sin_addr.s_addr;
	else
		memcpy(&key.addr, &peer.sin6_addr.s6_addr[12], sizeof(key.addr));
	key.port = htonl(ntohs(peer.sin6_port));
	ev.data.fd = fd;
	if ((peer.sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr)) ||
	    bpf_map_update_elem(map_fd, &key, &fd, BPF_ANY) ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		close(fd);
	else
		send_back(fd);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS], ev = { .events = EPOLLIN };
	int n, i, listener = server_open(argc, argv, "12348");

	map_fd = bpf_map_create(BPF_MAP_TYPE_SOCKHASH, "clients", sizeof(struct key), sizeof(int),
				CLIENTS, NULL);
	if (map_fd < 0)
		die("bpf_map_create: %s", strerror(errno));
	attach_program();
	epoll_fd = epoll_create1(0);
	ev.data.fd = listener;
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev))
		die("epoll: %s", strerror(errno));
	for (;;) {
		n = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				on_accept(listener);
			else
				close(events[i].data.fd);
		}
	}
}
