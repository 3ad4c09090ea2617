// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drop_lines - shows what drop_tcp_sock reads out of standard input. A line of output per line of input:
 *	LOCAL PORT REMOTE PORT STATES LISTENERS IFNAME PAIR	or
 *	! what is wrong with it
 * where an address is FAMILY/PREFIX/32 hexadecimal digits.
 * It is cut into pieces of the size given as argument. With "splits" it is read cut in two at every
 * place, and into pieces of every size instead, with a line that says so behind each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "line.h"

#define INPUT_MAX ((size_t)1 << 20)

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

/* Shows what is read of the bytes in a first piece and others of these sizes. */
static void read_pieces(const char *bytes, size_t len, size_t first, size_t others)
{
	struct drop_cutter cutter = {};
	struct drop_text line;
	size_t size = first;

	while (len) {
		size_t left = size < len ? size : len;
		/* A buffer of its own for each piece, so that reading beyond it is found out. */
		char *piece = malloc(left);
		const char *at = piece;

		size = others;
		memcpy(piece, bytes, left);
		bytes += left;
		len -= left;
		while (left && drop_cut(&cutter, &at, &left, &line))
			show(&line);
		free(piece);
	}
	if (drop_cut_last(&cutter, &line))
		show(&line);
}

int main(int argc, char **argv)
{
	char *bytes = malloc(INPUT_MAX);
	size_t len = fread(bytes, 1, INPUT_MAX, stdin);
	size_t size = INPUT_MAX;

	if (len == INPUT_MAX)
		abort();
	if (argc > 1 && !strcmp(argv[1], "splits")) {
		for (size = 1; size <= len; size++) {
			read_pieces(bytes, len, size, len);
			puts("cut in two");
			read_pieces(bytes, len, size, size);
			puts("cut into pieces");
		}
	} else {
		if (argc > 1)
			size = strtoul(argv[1], NULL, 10);
		read_pieces(bytes, len, size, size);
	}
	free(bytes);
	return 0;
}
