// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * tcpdrop - drop TCP connections by address and port, through /proc/net/drop_tcp_sock;
 * docs/tcpdrop.8
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "line.h"
#include "sockdiag.h"
#include "util.h"

#define FILE_PATH "/proc/net/drop_tcp_sock"
#define LINE_SPACE (DROP_LINE_MAX + 2)
#define WORD_SPACE 128 /* a well-formed word is shorter by far */

enum {
	EXIT_ALL_DROPPED = 0,
	EXIT_NOT_FOUND = 1,
	EXIT_USAGE = 2,
};

/* What was asked for on the command line. */
static struct {
	int family; /* AF_INET, AF_INET6 or 0 */
	bool list;
	bool dry_run;
	bool verbose;
} opt;

/* What came of all lines so far. */
static struct {
	bool not_found;
	bool malformed;
} result;

static void usage(FILE *to)
{
	fputs("usage: tcpdrop [-46lnv] [--netns NAME] LOCAL:PORT REMOTE:PORT [STATE]\n"
	      "       tcpdrop [-46lnv] [--netns NAME] LOCAL PORT REMOTE PORT\n"
	      "       tcpdrop [-46lnv] [--netns NAME] -a | -s STATE\n"
	      "       tcpdrop [-46lnv] [--netns NAME] -\n"
	      "  -a            every connection; no listener\n"
	      "  -s STATE      those in STATE, as ss spells it: time-wait, close-wait, listening, ...\n"
	      "  -             read lines 'LOCAL:PORT REMOTE:PORT [STATE]' from standard input\n"
	      "  -4, -6        IPv4 or IPv6 only\n"
	      "  -l            list what matches, in lines that can be fed back; drop nothing\n"
	      "  -n            say what would be dropped; drop nothing\n"
	      "  -v            say what came of each line\n"
	      "  --netns NAME  in that network namespace (see ip-netns(8))\n"
	      "An address may be *, have a prefix length (10.0.0.0/8:443) or an interface\n"
	      "(fe80::1%eth0:80); a port may be *. Exit status: 0 all dropped, 1 some not found,\n"
	      "2 bad usage or no permission.\n",
	      to);
}

/* --- what there is --- */

struct found {
	struct drop_tuple tuple;
	unsigned int state;
	unsigned int ifindex;
	bool mapped;
};

static struct {
	struct found *all;
	size_t n, room;
} table;

static void table_add(const struct inet_diag_msg *msg, void *priv)
{
	struct found *f;

	(void)priv;
	if (table.n == table.room) {
		table.room = table.room ? 2 * table.room : 1024;
		table.all = realloc(table.all, table.room * sizeof(*table.all));
		if (!table.all)
			die("out of memory");
	}
	f = &table.all[table.n++];
	memset(f, 0, sizeof(*f));
	f->state = msg->idiag_state;
	f->ifindex = msg->id.idiag_if;
	f->tuple.local_port = ntohs(msg->id.idiag_sport);
	f->tuple.remote_port = ntohs(msg->id.idiag_dport);
	if (msg->idiag_family == AF_INET) {
		f->tuple.family = 4;
		drop_map_address(f->tuple.local, msg->id.idiag_src);
		drop_map_address(f->tuple.remote, msg->id.idiag_dst);
	} else {
		memcpy(f->tuple.local, msg->id.idiag_src, 16);
		memcpy(f->tuple.remote, msg->id.idiag_dst, 16);
		f->mapped = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)f->tuple.local);
		f->tuple.family = f->mapped ? 4 : 6;
		/* A listener's remote end, which it has not, is said to be IPv6's unspecified address. */
		if (f->mapped && IN6_IS_ADDR_UNSPECIFIED((const struct in6_addr *)f->tuple.remote))
			drop_map_address(f->tuple.remote, "\0\0\0");
	}
}

static void table_read(void)
{
	table.n = 0;
	sockdiag_each(AF_INET, ~0u, table_add, NULL);
	sockdiag_each(AF_INET6, ~0u, table_add, NULL);
}

static void print_end(const struct found *f, const u8 addr[16], unsigned int port,
		      unsigned int ifindex)
{
	bool v4 = f->tuple.family == 4 && !f->mapped;
	char text[INET6_ADDRSTRLEN], name[IF_NAMESIZE];

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? addr + 12 : addr, text, sizeof(text));
	printf(v4 ? "%s" : "[%s]", text);
	if (ifindex && if_indextoname(ifindex, name))
		printf("%%%s", name);
	else if (ifindex) /* the interface is gone; its sockets need not be */
		printf("%%%u", ifindex);
	if (port)
		printf(":%u", port);
	else
		printf(":*");
}

static void print_found(const struct found *f)
{
	print_end(f, f->tuple.local, f->tuple.local_port, f->ifindex);
	putchar(' ');
	print_end(f, f->tuple.remote, f->tuple.remote_port, 0);
	printf(" %s\n", drop_state_name(f->state));
}

/* As the module does: a name, else an index, or "if7", as ss has it. Return: 0 if it is none. */
static unsigned int ifindex_of(const char *name)
{
	unsigned int ifindex = if_nametoindex(name);
	unsigned long value;
	char *end;

	if (ifindex)
		return ifindex;
	if (!strncmp(name, "if", 2))
		name += 2;
	value = strtoul(name, &end, 10);
	return *end || value > INT_MAX ? 0 : value;
}

static void show_match(const struct found *f)
{
	if (!opt.list)
		printf("would drop ");
	print_found(f);
}

/*
 * -l and -n: shows what @sel asks for; of a pair with -n the one that would be dropped, which is
 * bound to no interface if there is such a one. @skipped: listeners met that it does not name as
 * such.
 */
static bool show_matches(const struct drop_selector *sel, unsigned long *skipped)
{
	const struct found *first = NULL;
	unsigned int ifindex = 0;
	bool any = false;
	size_t i;

	*skipped = 0;
	if (*sel->ifname) {
		ifindex = ifindex_of(sel->ifname);
		if (!ifindex)
			return false;
	}
	for (i = 0; i < table.n; i++) {
		const struct found *f = &table.all[i];

		if (!(sel->states & (1u << f->state)) || (ifindex && f->ifindex != ifindex))
			continue;
		if (f->state == TCP_CLOSE || !drop_matches(sel, &f->tuple))
			continue;
		if (f->state == TCP_LISTEN && !sel->listeners) {
			(*skipped)++;
			continue;
		}
		any = true;
		if (opt.list || !drop_is_pair(sel))
			show_match(f);
		else if (!first || (first->ifindex && !f->ifindex))
			first = f;
	}
	if (first)
		show_match(first);
	return any;
}

/* --- the module --- */

/* What the module counted for our lines; its names for them, but for "file_" before. */
struct counts {
	uint64_t requested;
	uint64_t dropped;
	uint64_t by_state[DROP_STATES];
	uint64_t not_found;
	uint64_t skipped_listener;
	uint64_t malformed;
};

static int file_fd = -1;

static void file_open(void)
{
	file_fd = open(FILE_PATH, O_RDWR | O_CLOEXEC);
	if (file_fd >= 0)
		return;
	if (errno == ENOENT)
		die("%s is not there: load the module (insmod drop_tcp_sock.ko)", FILE_PATH);
	die("%s: %s", FILE_PATH, strerror(errno));
}

static uint64_t *count_of(struct counts *counts, const char *name)
{
	char state[DROP_STATE_MAX];
	unsigned int i;

	if (!strcmp(name, "requested"))
		return &counts->requested;
	if (!strcmp(name, "dropped"))
		return &counts->dropped;
	if (!strcmp(name, "not_found"))
		return &counts->not_found;
	if (!strcmp(name, "skipped_listener"))
		return &counts->skipped_listener;
	if (!strcmp(name, "malformed"))
		return &counts->malformed;
	if (strncmp(name, "dropped_", 8))
		return NULL;
	for (i = 1; i < DROP_STATES; i++) {
		drop_state_field(i, state);
		if (!strcmp(name + 8, state))
			return &counts->by_state[i];
	}
	return NULL;
}

static void file_counts(struct counts *counts)
{
	static const char prefix[] = "file_";
	char text[8192], *line, *save = NULL;
	ssize_t n = pread(file_fd, text, sizeof(text) - 1, 0);

	memset(counts, 0, sizeof(*counts));
	if (n <= 0)
		die("reading %s: %s", FILE_PATH, n ? strerror(errno) : "nothing there");
	text[n] = '\0';
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *space = strchr(line, ' ');
		uint64_t *count;

		if (!space || strncmp(line, prefix, strlen(prefix)))
			continue;
		*space = '\0';
		count = count_of(counts, line + strlen(prefix));
		if (count)
			*count = strtoull(space + 1, NULL, 10);
	}
}

static void file_write(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(file_fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("writing %s: %s", FILE_PATH, strerror(errno));
		data += n;
		len -= n;
	}
}

/* --- lines --- */

static struct {
	char data[65536];
	size_t len;
} pending;

static void flush(void)
{
	if (!pending.len)
		return;
	file_write(pending.data, pending.len);
	pending.len = 0;
}

static void say_outcome(const char *line, const struct counts *before, const struct counts *after)
{
	uint64_t dropped = after->dropped - before->dropped;
	const char *sep = dropped > 1 ? ": " : " ";
	unsigned int i;

	printf("%s: ", line);
	if (dropped > 1)
		printf("dropped %llu", (unsigned long long)dropped);
	else if (dropped)
		printf("dropped");
	for (i = 1; i < DROP_STATES && dropped; i++) {
		uint64_t n = after->by_state[i] - before->by_state[i];

		if (!n)
			continue;
		printf("%s%s", sep, drop_state_name(i));
		if (dropped > 1)
			printf(" %llu", (unsigned long long)n);
		sep = ", ";
	}
	if (after->skipped_listener > before->skipped_listener)
		printf("%sskipped %llu listening", dropped ? ", " : "",
		       (unsigned long long)(after->skipped_listener - before->skipped_listener));
	else if (!dropped)
		printf("not found");
	putchar('\n');
}

/* -4 and -6: an end that leaves the family open gets it. Return: false if it has the other. */
static bool narrow(struct drop_end *end, char *word, size_t room)
{
	int family = opt.family == AF_INET ? 4 : 6;
	const char *all = opt.family == AF_INET ? "0.0.0.0/0" : "[::]/0";
	char rest[WORD_SPACE - 16];

	if (!opt.family || end->family == family)
		return true;
	if (end->family)
		return false;
	/* "*" is the first byte; what follows, an interface perhaps and the port, stays. */
	snprintf(rest, sizeof(rest), "%s", word + strcspn(word, "%:"));
	if (*rest == '%') {
		/* The interface stands before the prefix length. */
		char *colon = strrchr(rest, ':');

		snprintf(word, room, "%s%.*s/0%s", family == 4 ? "0.0.0.0" : "[::]",
			 (int)(colon - rest), rest, colon);
	} else {
		snprintf(word, room, "%s%s", all, rest);
	}
	return true;
}

/* Reads, and drops or shows, one line. @number: for messages; 0 for the command line. */
static void one_line(const struct drop_text *text, unsigned long number)
{
	char words[3][WORD_SPACE] = { "", "", "" }, line[3 * WORD_SPACE + 4];
	struct counts before, after;
	struct drop_selector sel;
	const char *wrong = drop_parse(text, &sel);
	int len;

	if (wrong && !*wrong)
		return;
	if (!wrong) {
		/* Parsed, so there are two or three words, each shorter than the line. */
		snprintf(line, sizeof(line), "%.*s", (int)text->len, text->s);
		sscanf(line, " %127s %127s %127s", words[0], words[1], words[2]);
		if (!narrow(&sel.local, words[0], sizeof(words[0])) ||
		    !narrow(&sel.remote, words[1], sizeof(words[1]))) {
			if (number) /* standard input may hold both; those of one were asked for */
				return;
			wrong = opt.family == AF_INET ? "an IPv6 address with -4"
						      : "an IPv4 address with -6";
		} else if (!*words[2] && sel.states == 1U << TCP_LISTEN) {
			/*
			 * "*:*" as the remote end meant listeners, and an address in its place would
			 * not; nor does this word permit their drop.
			 */
			strcpy(words[2], "listen");
		}
	}
	if (wrong) {
		char escaped[DROP_ESCAPED_MAX];

		drop_escape(text->s, text->len, escaped);
		result.malformed = true;
		if (number)
			fprintf(stderr, "tcpdrop: line %lu: %s: \"%s\"\n", number, wrong, escaped);
		else
			fprintf(stderr, "tcpdrop: %s: \"%s\"\n", wrong, escaped);
		if (opt.verbose)
			printf("%s: malformed\n", escaped);
		return;
	}
	len = snprintf(line, sizeof(line), "%s %s%s%s\n", words[0], words[1], *words[2] ? " " : "",
		       words[2]);
	if (opt.list || opt.dry_run) {
		struct drop_text again = { .s = line, .len = len - 1 };
		unsigned long skipped;
		bool any;

		drop_parse(&again, &sel);
		any = show_matches(&sel, &skipped);
		if (!any || skipped)
			result.not_found = true;
		if (opt.verbose && skipped)
			printf("%.*s: skipped %lu listening\n", len - 1, line, skipped);
		else if (opt.verbose && !any)
			printf("%.*s: not found\n", len - 1, line);
		return;
	}
	if (opt.verbose) {
		file_counts(&before);
		file_write(line, len);
		file_counts(&after);
		line[len - 1] = '\0';
		say_outcome(line, &before, &after);
		return;
	}
	if (pending.len + len > sizeof(pending.data))
		flush();
	memcpy(pending.data + pending.len, line, len);
	pending.len += len;
}

static void from_stdin(void)
{
	static char data[65536];
	struct drop_cutter cutter = {};
	unsigned long number = 0;
	struct drop_text text;
	ssize_t n;

	while ((n = read(STDIN_FILENO, data, sizeof(data))) != 0) {
		const char *at = data;
		size_t left = n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			flush();
			die("standard input: %s", strerror(errno));
		}
		while (left && drop_cut(&cutter, &at, &left, &text))
			one_line(&text, ++number);
		flush(); /* lines may come a few at a time */
	}
	if (drop_cut_last(&cutter, &text))
		one_line(&text, ++number);
}

/* A line from the command line's words. */
static void from_words(const char *local, const char *remote, const char *state)
{
	char line[4096];
	struct drop_text text = { .s = line };
	int len = snprintf(line, sizeof(line), "%s %s %s", local, remote, state);

	text.len = len > DROP_LINE_MAX ? DROP_LINE_MAX : len;
	text.too_long = len > DROP_LINE_MAX;
	one_line(&text, 0);
}

/* "ADDRESS PORT" as FreeBSD's command takes them. */
static const char *joined(const char *address, const char *port, char *out, size_t size)
{
	snprintf(out, size, "%s:%s", address, port);
	return out;
}

static void enter_netns(const char *name)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die("network namespace '%s': %s", name, strerror(errno));
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "netns", required_argument, NULL, 'N' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	const char *states[16], *netns = NULL;
	unsigned int n_states = 0, i;
	char local[LINE_SPACE], remote[LINE_SPACE];
	bool all = false, in;
	int c, words;

	guard_streams();
	while ((c = getopt_long(argc, argv, "46alns:vh", longs, NULL)) != -1) {
		switch (c) {
		case '4':
		case '6':
			if (opt.family && opt.family != (c == '4' ? AF_INET : AF_INET6))
				die("-4 and -6 exclude each other");
			opt.family = c == '4' ? AF_INET : AF_INET6;
			break;
		case 'a':
			all = true;
			break;
		case 'l':
			opt.list = true;
			break;
		case 'n':
			opt.dry_run = true;
			break;
		case 's':
			if (n_states == ARRAY_SIZE(states))
				die("too many states, the last '%s'", optarg);
			if (!*optarg)
				die("-s: '' is not a state");
			states[n_states++] = optarg;
			break;
		case 'v':
			opt.verbose = true;
			break;
		case 'N':
			netns = optarg;
			break;
		case 'h':
			usage(stdout);
			return printed();
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	argv += optind;
	words = argc - optind;
	in = words == 1 && !strcmp(argv[0], "-");
	if (!words && opt.list && !n_states)
		all = true;
	if ((all || n_states) ? words != 0 : !in && (words < 2 || words > 4)) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (all && n_states)
		die("-a is every state: leave out -s %s", states[0]);
	if (netns)
		enter_netns(netns);
	if (opt.list || opt.dry_run)
		table_read();
	else
		file_open();

	if (in)
		from_stdin();
	else if (all)
		from_words("*:*", "*:*", "connected");
	else if (n_states)
		for (i = 0; i < n_states; i++)
			from_words("*:*", "*:*", states[i]);
	else if (words == 4)
		from_words(joined(argv[0], argv[1], local, sizeof(local)),
			   joined(argv[2], argv[3], remote, sizeof(remote)), "");
	else
		from_words(argv[0], argv[1], words == 3 ? argv[2] : "");

	if (file_fd >= 0) {
		struct counts counts;

		flush();
		file_counts(&counts);
		result.not_found |= counts.not_found || counts.skipped_listener;
		result.malformed |= counts.malformed;
	}
	if (fflush(stdout) || ferror(stdout))
		die("standard output: %s", strerror(errno));
	if (result.malformed)
		return EXIT_USAGE;
	return result.not_found ? EXIT_NOT_FOUND : EXIT_ALL_DROPPED;
}
