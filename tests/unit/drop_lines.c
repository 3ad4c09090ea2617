// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drop_lines - shows what drop_tcp_sock reads out of standard input, which is cut into pieces of
 * the sizes given as arguments, again and again. A line of output per line of input:
 *	LOCAL PORT REMOTE PORT STATES LISTENERS IFNAME PAIR	or
 *	! what is wrong with it
 * where an address is FAMILY/PREFIX/32 hexadecimal digits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "line.h"

static void show_end(const struct drop_end *end)
{
	unsigned int i;

	printf("%u/%u/", end->family, end->prefix);
	for (i = 0; i < 16; i++)
		printf("%02x", end->addr[i]);
	if (end->any_port)
		printf(" * ");
	else
		printf(" %u ", end->port);
}

static void show(const struct drop_text *line)
{
	char escaped[DROP_ESCAPED_MAX];
	struct drop_selector sel;
	const char *wrong = drop_parse(line, &sel);

	drop_escape(line->s, line->len, escaped);
	if (wrong) {
		printf("! %s: \"%s\"\n", wrong, escaped);
		return;
	}
	show_end(&sel.local);
	show_end(&sel.remote);
	printf("%03x %d %s %d\n", sel.states, sel.listeners, *sel.ifname ? sel.ifname : "-",
	       drop_is_pair(&sel));
}

int main(int argc, char **argv)
{
	struct drop_cutter cutter = {};
	struct drop_text line;
	int turn = 0;

	for (;;) {
		size_t size = argc > 1 ? strtoul(argv[1 + turn++ % (argc - 1)], NULL, 10) : 4096;
		/* A buffer of its own for each piece, so that reading beyond it is found out. */
		char *piece = malloc(size);
		size_t left = fread(piece, 1, size, stdin);
		const char *at = piece;

		if (!left) {
			free(piece);
			break;
		}
		while (left && drop_cut(&cutter, &at, &left, &line))
			show(&line);
		free(piece);
	}
	if (drop_cut_last(&cutter, &line))
		show(&line);
	return 0;
}
