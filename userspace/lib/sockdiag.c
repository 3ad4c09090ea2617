// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "sockdiag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

/* Return: whether more messages follow. */
static bool each_message(const struct nlmsghdr *msg, size_t len,
			 void (*fn)(const struct inet_diag_msg *msg, void *priv), void *priv)
{
	for (; NLMSG_OK(msg, len); msg = NLMSG_NEXT(msg, len)) {
		if (msg->nlmsg_type == NLMSG_DONE)
			return false;
		if (msg->nlmsg_type == NLMSG_ERROR) {
			const struct nlmsgerr *err = NLMSG_DATA(msg);

			die("sock_diag: %s", strerror(-err->error));
		}
		fn(NLMSG_DATA(msg), priv);
	}
	return true;
}

void sockdiag_each(int family, uint32_t states,
		   void (*fn)(const struct inet_diag_msg *msg, void *priv), void *priv)
{
	static _Alignas(struct nlmsghdr) char buffer[32768];
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 body;
	} request = {
		.header = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.body = {
			.sdiag_family = family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = states,
		},
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	ssize_t got;

	if (fd < 0 || send(fd, &request, sizeof(request), 0) < 0)
		die("sock_diag: %s", strerror(errno));
	do {
		got = recv(fd, buffer, sizeof(buffer), 0);
		if (got < 0 && errno != EINTR)
			die("sock_diag: %s", strerror(errno));
	} while (got < 0 || each_message((struct nlmsghdr *)buffer, got, fn, priv));
	close(fd);
}
