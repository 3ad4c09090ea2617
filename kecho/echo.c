// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * echo.c - the echo protocol: every byte goes back as it came, in order. It keeps no state, and
 * the end of the input is the end of the output, which is what the server core does by itself.
 */
#include "echo.h"

/* What does not fit into the send queue stays in the receive queue and closes the peer's window. */
static int echo_recv(struct ksrv_conn *conn, struct ksrv_input *in)
{
	return ksrv_send_input(conn, in, ksrv_input_len(in));
}

const struct ksrv_ops echo_ops = {
	.recv = echo_recv,
};
