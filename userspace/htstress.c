// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * htstress - loads an HTTP server with GET requests, reads every answer to its last byte, and tells
 * how many there were and how fast they came. See usage().
 */
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http.h"
#include "util.h"

static struct http http = { .depth = 1 };
static const char *host_field; /* or NULL for the URL's host */
static bool http10;

static void usage(FILE *to)
{
	fputs("usage: htstress [OPTION]... [http://]HOST[:PORT][/PATH]      (default port: 80)\n"
	      "  -n, --number N       requests in all (default 10000)\n"
	      "  -d, --duration S     go on for S seconds instead\n"
	      "  -c, --concurrency N  connections at a time (default 1)\n"
	      "  -t, --threads N      threads that share the connections (default 1)\n"
	      "  -k, --keepalive      keep the connections; else each request has one of its own\n"
	      "  -P, --pipeline N     with -k: send N requests at a time (default 1)\n"
	      "  -0, --http1.0        ask by HTTP/1.0\n"
	      "  -4, -6               resolve HOST to IPv4 or IPv6 only\n"
	      "      --host NAME      what the Host field says (default: the URL's host)\n"
	      "      --lean           no clock per request: least client cost\n"
	      "      --hold           keep the connections open at the end until SIGINT or SIGTERM\n"
	      "      --timeout S      give up when nothing has moved for S seconds (default 30)\n"
	      "      --json, --csv    print the result as a JSON object, or as a CSV header and row\n"
	      "      --label TEXT     put TEXT into the result, to tell runs apart\n"
	      "      --hist FILE      write the whole distribution of latencies as CSV\n"
	      "Good is an answer of status 2xx whose body is as long as its Content-Length, or its chunks,\n"
	      "say; bad one of another status. Whatever else happens counts as a socket error, costs a\n"
	      "request, and the connection is made anew. With -P it costs all N that were sent together,\n"
	      "those of them included that were answered. Without -k the server has to close behind its\n"
	      "answer. Latency runs from the send of a request's first byte to the last of its answer (with\n"
	      "-P: of all N answers), and where the server is to close behind that, to its close.\n"
	      "Requests/sec is of answers, good and bad.\n"
	      "--timeout is also how long is waited, after -d, for what is under way.\n"
	      "Exit status: 0 all good, 1 not all good, 2 bad usage.\n",
	      to);
}

/* Rounded down: 100 is all. */
static unsigned int percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * part / whole : 0;
}

/* Of answers, good and bad, a second. */
static double rate(const struct load_result *r)
{
	return (r->messages + r->bad) / r->seconds;
}

static void print_text(const struct load_options *opt, const struct load_result *r,
		       const char *label)
{
	uint64_t errors = load_errors(r), all = r->messages + r->bad + errors;

	(void)label;
	printf("\nrequests:      %" PRIu64 "\n", all);
	printf("good requests: %" PRIu64 " [%u%%]\n", r->messages, percent(r->messages, all));
	printf("bad requests:  %" PRIu64 " [%u%%]\n", r->bad, percent(r->bad, all));
	printf("socket errors: %" PRIu64 " [%u%%]\n", errors, percent(errors, all));
	printf("seconds:       %.3f\n", r->seconds);
	printf("requests/sec:  %.3f\n\n", rate(r));
	if (!opt->lean) {
		hist_print(&r->latency, "latency", stdout);
		hist_print(&r->connect, "connect", stdout);
	}
	if (errors)
		load_print_errors(r);
}

static void print_json(const struct load_options *opt, const struct load_result *r,
		       const char *label)
{
	printf("{\"label\": ");
	json_string(label, stdout);
	printf(", \"connections\": %u, \"threads\": %u, \"keepalive\": %s, \"pipeline\": %u, ",
	       opt->conns, opt->threads, http.keep ? "true" : "false", http.depth);
	printf("\"good\": %" PRIu64 ", \"bad\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.9f, \"requests_per_second\": %.3f, \"latency_ns\": ",
	       r->messages, r->bad, r->bytes, r->seconds, rate(r));
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
	printf("label,connections,threads,keepalive,pipeline,good,bad,socket_errors,bytes,seconds,requests_per_second");
	hist_csv_header("latency", stdout);
	hist_csv_header("connect", stdout);
	load_csv_errors_header(stdout);
	putchar('\n');
	csv_string(label, stdout);
	printf(",%u,%u,%d,%u,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.9f,%.3f", opt->conns,
	       opt->threads, http.keep, http.depth, r->messages, r->bad, load_errors(r), r->bytes,
	       r->seconds, rate(r));
	hist_csv(&r->latency, stdout);
	hist_csv(&r->connect, stdout);
	load_csv_errors(r, stdout);
	putchar('\n');
}

enum { OPT_HOST = LOAD_OPT_OWN };

static const struct option long_options[] = {
	{ "number", required_argument, NULL, 'n' },
	{ "duration", required_argument, NULL, 'd' },
	{ "concurrency", required_argument, NULL, 'c' },
	{ "keepalive", no_argument, NULL, 'k' },
	{ "pipeline", required_argument, NULL, 'P' },
	{ "http1.0", no_argument, NULL, '0' },
	{ "host", required_argument, NULL, OPT_HOST },
	LOAD_LONG_OPTIONS,
};

/* Splits @url into its host, with brackets where it has them, its port and its path; a fragment is nobody's but ours. */
static void split_url(const char *whole, char **host, char **port, char **path)
{
	const char *url = strndup(whole, strcspn(whole, "#")), *at = url, *end;
	size_t len;

	if (!strncasecmp(at, "https://", 8))
		die("%s: no TLS here, only http://", url);
	if (!strncasecmp(at, "http://", 7))
		at += 7;
	else if (!strncmp(at + strcspn(at, ":/?["), "://", 3))
		die("%s: only http:// here", url);
	len = *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, ":/?");
	*host = strndup(at, len);
	if (!**host || (*at == '[' && (*host)[strlen(*host) - 1] != ']'))
		die("no host in '%s'", url);
	at += len;
	end = at;
	if (*at == ':') {
		at++;
		end = at + strcspn(at, "/?");
		if (end == at)
			die("no port behind the colon in '%s'", url);
	}
	*port = at == end ? strdup("80") : strndup(at, end - at);
	if (*end && !strchr("/?", *end))
		die("neither a port nor a path behind the host in '%s'", url);
	if (asprintf(path, "%s%s", *end == '/' ? "" : "/", end) < 0)
		die("out of memory");
}

/* What the Host field says of @host: a zone means something to this machine alone (RFC 6874). */
static char *without_zone(const char *host)
{
	size_t len = strcspn(host, "%");
	char *text;

	if (*host != '[' || !host[len])
		return strdup(host);
	if (asprintf(&text, "%.*s]", (int)len, host) < 0)
		die("out of memory");
	return text;
}

/* What to resolve of @host: without brackets, and the "%" in front of a zone may be written "%25" (RFC 6874). */
static char *without_brackets(char *host)
{
	char *bare, *zone;

	if (*host != '[')
		return host;
	bare = strndup(host + 1, strlen(host) - 2);
	zone = strchr(bare, '%');
	if (zone && !strncmp(zone, "%25", 3) && zone[3])
		memmove(zone + 1, zone + 3, strlen(zone + 3) + 1);
	return bare;
}

static void compose(const char *url, int family, struct load_options *opt)
{
	char *host, *port, *path, *text;

	split_url(url, &host, &port, &path);
	if (asprintf(&text, "GET %s HTTP/1.%d\r\nHost: %s%s%s\r\n%s\r\n", path, !http10,
		     host_field ?: without_zone(host), host_field || !strcmp(port, "80") ? "" : ":",
		     host_field || !strcmp(port, "80") ? "" : port,
		     http10 ? (http.keep ? "Connection: keep-alive\r\n" : "")
			    : (http.keep ? "" : "Connection: close\r\n")) < 0)
		die("out of memory");
	http.request = text;
	http.request_len = strlen(text);
	http_init(&http);
	opt->addr = resolve(without_brackets(host), port, family, false, &opt->addrlen);
}

/* What the options imply, and what cannot be. */
static void complete(struct load_options *opt)
{
	if (opt->total && opt->seconds > 0)
		die("-n and -d: one of them says when to stop");
	if (!opt->total && opt->seconds == 0)
		opt->total = 10000;
	if (http.depth > 1 && !http.keep)
		die("-P needs -k: without it each request has a connection of its own");
	if (opt->hold && !http.keep)
		die("--hold needs -k: without it there is nothing to keep");
	if (opt->total && opt->conns > opt->total)
		opt->conns = opt->total;
	opt->mode = http.keep ? LOAD_STEADY : LOAD_RECONNECT;
}

static void parse(int argc, char **argv, struct load_options *opt, struct load_output *out)
{
	int c, family = AF_UNSPEC;

	while ((c = getopt_long(argc, argv, "n:d:c:t:kP:046h", long_options, NULL)) != -1) {
		switch (c) {
		case 'n':
			opt->total = number("-n", optarg, 1, UINT64_MAX);
			break;
		case 'd':
			opt->seconds = seconds("-d", optarg);
			break;
		case 'k':
			http.keep = true;
			break;
		case 'P':
			http.depth = number("-P", optarg, 1, 10000);
			break;
		case '0':
			http10 = true;
			break;
		case OPT_HOST:
			host_field = optarg;
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
	if (optind != argc - 1)
		die(optind == argc ? "which URL?" : "one URL, not '%s' as well", argv[argc - 1]);
	complete(opt);
	compose(argv[optind], family, opt);
	load_complete(opt);
}

int main(int argc, char **argv)
{
	struct load_options opt = { .conns = 1,
				    .threads = 1,
				    .stall = 30,
				    .retry = true,
				    .protocol = &http_protocol,
				    .arg = &http };
	struct load_output out = { .label = "", .print = { print_text, print_json, print_csv } };

	guard_streams();
	parse(argc, argv, &opt, &out);
	return load_main(&opt, &out);
}
