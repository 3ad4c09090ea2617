// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * user-echo-server - a TCP echo server in user space, the baseline of kecho.
 */
#include "server.h"

static size_t echo(unsigned int *state, const char **text, size_t len, bool *last)
{
	(void)state;
	(void)text;
	(void)last;
	return len;
}

int main(int argc, char **argv)
{
	return server_main(argc, argv, "12346", echo);
}
