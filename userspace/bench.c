// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * bench - loads a TCP echo server with many connections, verifies every byte that comes back,
 * and tells how fast it came. See usage().
 */
#include <arpa/inet.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "echo.h"
#include "util.h"

static struct echo echo = { .size = 64 };

static void usage(FILE *to)
{
	fputs("usage: bench [OPTION]... [HOST [PORT]]      (default: 127.0.0.1 12345)\n"
	      "  -c, --connections N  connections at a time (default 100)\n"
	      "  -n, --messages N     messages per connection (default 100)\n"
	      "  -d, --duration S     send for S seconds instead\n"
	      "  -s, --size BYTES     bytes in a message (default 64)\n"
	      "  -t, --threads N      threads that share the connections (default 1)\n"
	      "  -4, -6               resolve HOST to IPv4 or IPv6 only\n"
	      "      --burst          release all connections at once, one message each; the time of each\n"
	      "                       includes its connect\n"
	      "      --reconnect      every message on a connection of its own\n"
	      "      --lean           no clock and no check of the bytes per message: least client cost\n"
	      "      --hold           keep the connections open at the end until SIGINT or SIGTERM\n"
	      "      --timeout S      give up when nothing has moved for S seconds (default 30)\n"
	      "      --json, --csv    print the result as a JSON object, or as a CSV header and row\n"
	      "      --label TEXT     put TEXT into the result, to tell runs apart\n"
	      "      --hist FILE      write the whole distribution of latencies as CSV\n"
	      "Latency runs from the send of a message's first byte to the receipt of its last. Towards\n"
	      "127.0.0.0/8, 8,000 connections at a time come from one source address, then the next.\n"
	      "Exit status: 0 all came back right, 1 something did not, 2 bad usage.\n",
	      to);
}

static void print_text(const struct load_options *opt, const struct load_result *r,
		       const char *label)
{
	(void)label;
	printf("%" PRIu64 " messages of %zu bytes on %u connections in %.3f s\n", r->messages,
	       echo.size, opt->conns, r->seconds);
	printf("%.1f messages/s, %.2f MB/s\n", r->messages / r->seconds,
	       r->bytes / r->seconds / 1e6);
	if (!opt->lean) {
		hist_print(&r->latency, "latency", stdout);
		hist_print(&r->connect, "connect", stdout);
	}
	if (load_failed(r))
		load_print_errors(r);
}

static void print_json(const struct load_options *opt, const struct load_result *r,
		       const char *label)
{
	printf("{\"label\": ");
	json_string(label, stdout);
	printf(", \"connections\": %u, \"threads\": %u, \"size\": %zu, \"lean\": %s, ", opt->conns,
	       opt->threads, echo.size, opt->lean ? "true" : "false");
	printf("\"messages\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.9f, \"messages_per_second\": %.3f, ",
	       r->messages, r->bytes, r->seconds, r->messages / r->seconds);
	printf("\"latency_ns\": ");
	hist_json(&r->latency, stdout);
	printf(", \"connect_ns\": ");
	hist_json(&r->connect, stdout);
	printf(", \"cpu_seconds\": ");
	cpustat_json(&r->cpu, stdout);
	printf(", \"errors\": ");
	load_json_errors(r, stdout);
	printf("}\n");
}

static void print_csv(const struct load_options *opt, const struct load_result *r,
		      const char *label)
{
	printf("label,connections,threads,size,messages,bytes,seconds,messages_per_second,failed");
	hist_csv_header("latency", stdout);
	hist_csv_header("connect", stdout);
	load_csv_errors_header(stdout);
	putchar('\n');
	csv_string(label, stdout);
	printf(",%u,%u,%zu,%" PRIu64 ",%" PRIu64 ",%.9f,%.3f,%" PRIu64, opt->conns, opt->threads,
	       echo.size, r->messages, r->bytes, r->seconds, r->messages / r->seconds,
	       load_errors(r));
	hist_csv(&r->latency, stdout);
	hist_csv(&r->connect, stdout);
	load_csv_errors(r, stdout);
	putchar('\n');
}

enum { OPT_BURST = LOAD_OPT_OWN, OPT_RECONNECT };

static const struct option long_options[] = {
	{ "connections", required_argument, NULL, 'c' },
	{ "messages", required_argument, NULL, 'n' },
	{ "duration", required_argument, NULL, 'd' },
	{ "size", required_argument, NULL, 's' },
	{ "burst", no_argument, NULL, OPT_BURST },
	{ "reconnect", no_argument, NULL, OPT_RECONNECT },
	LOAD_LONG_OPTIONS,
};

static void parse(int argc, char **argv, struct load_options *opt, struct load_output *out)
{
	const char *host = NULL, *port = "12345";
	int c, family = AF_UNSPEC;

	while ((c = getopt_long(argc, argv, "c:n:d:s:t:46h", long_options, NULL)) != -1) {
		switch (c) {
		case 'n':
			opt->messages = number("-n", optarg, 1, UINT64_MAX);
			break;
		case 'd':
			opt->seconds = seconds("-d", optarg);
			break;
		case 's':
			echo.size = number("-s", optarg, 1, 1u << 30);
			break;
		case OPT_BURST:
		case OPT_RECONNECT:
			if (opt->mode == (c == OPT_BURST ? LOAD_RECONNECT : LOAD_BURST))
				die("--burst and --reconnect: one of them");
			opt->mode = c == OPT_BURST ? LOAD_BURST : LOAD_RECONNECT;
			break;
		case 'h':
			usage(stdout);
			exit(printed());
		default:
			if (load_option(c, opt, &family, out))
				break;
			usage(stderr);
			exit(2);
		}
	}
	if (optind < argc)
		host = argv[optind++];
	if (optind < argc)
		port = argv[optind++];
	if (optind < argc)
		die("one HOST and one PORT, not '%s' as well", argv[optind]);
	opt->addr = resolve(host
				    ?: family == AF_INET6 ? "::1"
							  : "127.0.0.1",
			    port, family, false, &opt->addrlen);
}

/* What the options imply, and what cannot be. */
static void complete(struct load_options *opt)
{
	if (opt->messages && opt->seconds > 0)
		die("-n and -d: one of them says when to stop");
	if (opt->mode == LOAD_BURST && (opt->messages || opt->seconds > 0))
		die("%s: with --burst each connection has one message",
		    opt->messages ? "-n" : "-d");
	if (opt->mode != LOAD_STEADY && opt->hold)
		die("--hold: with %s no connection stays",
		    opt->mode == LOAD_BURST ? "--burst" : "--reconnect");
	if (opt->mode == LOAD_BURST)
		opt->messages = 1;
	else if (!opt->messages && opt->seconds == 0)
		opt->messages = 100;
	load_complete(opt);
}

int main(int argc, char **argv)
{
	struct load_options opt = {
		.conns = 100, .threads = 1, .stall = 30, .protocol = &echo_protocol, .arg = &echo
	};
	struct load_output out = { .label = "", .print = { print_text, print_json, print_csv } };

	guard_streams();
	parse(argc, argv, &opt, &out);
	complete(&opt);
	echo.lean = opt.lean;
	echo_init(&echo);
	return load_main(&opt, &out);
}
