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

#include "echoload.h"
#include "util.h"

enum format { TEXT, JSON, CSV };

struct output {
	enum format format;
	const char *hist_file;
	const char *label;
};

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

static void print_text(const struct load_options *opt, const struct load_result *r)
{
	printf("%" PRIu64 " messages of %zu bytes on %u connections in %.3f s\n", r->messages,
	       opt->size, opt->conns, r->seconds);
	printf("%.1f messages/s, %.2f MB/s\n", r->messages / r->seconds,
	       r->bytes / r->seconds / 1e6);
	if (!opt->lean) {
		hist_print(&r->latency, "latency", stdout);
		hist_print(&r->connect, "connect", stdout);
	}
	if (load_failed(r))
		printf("errors: %" PRIu64 " connect, %" PRIu64 " broken, %" PRIu64
		       " closed early, %" PRIu64 " wrong bytes, %" PRIu64
		       " unanswered; first: %s\n",
		       r->connect_failed, r->broken, r->short_eof, r->mismatched, r->unfinished,
		       r->first_error[0] ? r->first_error : "no answer in time");
}

/* A string of ours or the user's as a JSON string. */
static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void print_json(const struct load_options *opt, const struct load_result *r,
		       const struct output *out)
{
	printf("{\"label\": ");
	json_string(out->label);
	printf(", \"connections\": %u, \"threads\": %u, \"size\": %zu, \"lean\": %s, ", opt->conns,
	       opt->threads, opt->size, opt->lean ? "true" : "false");
	printf("\"messages\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.9f, \"messages_per_second\": %.3f, ",
	       r->messages, r->bytes, r->seconds, r->messages / r->seconds);
	printf("\"latency_ns\": ");
	hist_json(&r->latency, stdout);
	printf(", \"connect_ns\": ");
	hist_json(&r->connect, stdout);
	printf(", \"cpu_seconds\": ");
	cpustat_json(&r->cpu, stdout);
	printf(", \"errors\": {\"connect\": %" PRIu64 ", \"broken\": %" PRIu64
	       ", \"closed_early\": %" PRIu64 ", \"wrong_bytes\": %" PRIu64
	       ", \"unanswered\": %" PRIu64 ", \"first\": ",
	       r->connect_failed, r->broken, r->short_eof, r->mismatched, r->unfinished);
	json_string(r->first_error);
	printf("}}\n");
}

/* The label is quoted as RFC 4180 has it. */
static void csv_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"')
			putchar('"');
		putchar(*s);
	}
	putchar('"');
}

static void print_csv(const struct load_options *opt, const struct load_result *r,
		      const struct output *out)
{
	printf("label,connections,threads,size,messages,bytes,seconds,messages_per_second,failed");
	hist_csv_header("latency", stdout);
	hist_csv_header("connect", stdout);
	putchar('\n');
	csv_string(out->label);
	printf(",%u,%u,%zu,%" PRIu64 ",%" PRIu64 ",%.9f,%.3f,%" PRIu64, opt->conns, opt->threads,
	       opt->size, r->messages, r->bytes, r->seconds, r->messages / r->seconds,
	       r->connect_failed + r->broken + r->short_eof + r->mismatched + r->unfinished);
	hist_csv(&r->latency, stdout);
	hist_csv(&r->connect, stdout);
	putchar('\n');
}

static void write_hist(const struct load_result *r, const char *file)
{
	FILE *f = fopen(file, "w");

	if (!f)
		die("cannot write %s", file);
	hist_dump(&r->latency, f);
	if (fclose(f))
		die("cannot write %s", file);
}

enum {
	OPT_BURST = 256,
	OPT_RECONNECT,
	OPT_LEAN,
	OPT_HOLD,
	OPT_TIMEOUT,
	OPT_JSON,
	OPT_CSV,
	OPT_LABEL,
	OPT_HIST
};

static const struct option long_options[] = {
	{ "connections", required_argument, NULL, 'c' },
	{ "messages", required_argument, NULL, 'n' },
	{ "duration", required_argument, NULL, 'd' },
	{ "size", required_argument, NULL, 's' },
	{ "threads", required_argument, NULL, 't' },
	{ "burst", no_argument, NULL, OPT_BURST },
	{ "reconnect", no_argument, NULL, OPT_RECONNECT },
	{ "lean", no_argument, NULL, OPT_LEAN },
	{ "hold", no_argument, NULL, OPT_HOLD },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "csv", no_argument, NULL, OPT_CSV },
	{ "label", required_argument, NULL, OPT_LABEL },
	{ "hist", required_argument, NULL, OPT_HIST },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static double seconds(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0 && value <= 1e6))
		die("-d takes a number of seconds above 0, not '%s'", text);
	return value;
}

static void parse(int argc, char **argv, struct load_options *opt, struct output *out)
{
	const char *host = "127.0.0.1", *port = "12345";
	int c, family = AF_UNSPEC;

	while ((c = getopt_long(argc, argv, "c:n:d:s:t:46h", long_options, NULL)) != -1) {
		switch (c) {
		case 'c':
			opt->conns = number("-c", optarg, 1, 1000000);
			break;
		case 'n':
			opt->messages = number("-n", optarg, 1, UINT64_MAX);
			break;
		case 'd':
			opt->seconds = seconds(optarg);
			break;
		case 's':
			opt->size = number("-s", optarg, 1, 1u << 30);
			break;
		case 't':
			opt->threads = number("-t", optarg, 1, 1024);
			break;
		case '4':
			family = AF_INET;
			break;
		case '6':
			family = AF_INET6;
			break;
		case OPT_BURST:
			opt->mode = LOAD_BURST;
			break;
		case OPT_RECONNECT:
			opt->mode = LOAD_RECONNECT;
			break;
		case OPT_LEAN:
			opt->lean = true;
			break;
		case OPT_HOLD:
			opt->hold = true;
			break;
		case OPT_TIMEOUT:
			opt->stall = number("--timeout", optarg, 1, 86400);
			break;
		case OPT_JSON:
			out->format = JSON;
			break;
		case OPT_CSV:
			out->format = CSV;
			break;
		case OPT_LABEL:
			out->label = optarg;
			break;
		case OPT_HIST:
			out->hist_file = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
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
	if (family == AF_INET6 && !strcmp(host, "127.0.0.1"))
		host = "::1";
	opt->addr = resolve(host, port, family, false, &opt->addrlen);
}

/* What the options imply, and what cannot be. */
static void complete(struct load_options *opt)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)opt->addr;
	uint64_t files = raise_nofile();

	if (opt->messages && opt->seconds)
		die("-n and -d: one of them says when to stop");
	if (opt->mode == LOAD_BURST)
		opt->messages = 1;
	else if (!opt->messages && opt->seconds == 0)
		opt->messages = 100;
	if (opt->threads > opt->conns)
		opt->threads = opt->conns;
	if (files < opt->conns + 32)
		die("-c %u needs as many open files, and 'ulimit -n' allows %" PRIu64, opt->conns,
		    files);
	opt->spread = opt->addr->ss_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127 &&
		      (opt->conns > 8000 || opt->mode == LOAD_RECONNECT);
	opt->progress = isatty(STDERR_FILENO);
}

int main(int argc, char **argv)
{
	struct load_options opt = { .conns = 100, .threads = 1, .size = 64, .stall = 30 };
	struct output out = { .label = "" };
	static struct load_result result;

	parse(argc, argv, &opt, &out);
	complete(&opt);
	load_run(&opt, &result);
	if (out.format == JSON)
		print_json(&opt, &result, &out);
	else if (out.format == CSV)
		print_csv(&opt, &result, &out);
	else
		print_text(&opt, &result);
	if (out.hist_file)
		write_hist(&result, out.hist_file);
	return load_failed(&result);
}
