// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * wire - a TCP client of its own on a TUN device, which speaks to a server of the kernel as nobody
 * should: segments cut anywhere, sent twice, early, overlapping, in fragments; junk out of window,
 * with a wrong checksum, with an ACK of what was never sent; windows of a byte; resets that miss. Large
 * segments come in pages, as from a network card.
 *
 * Usage: wire [-s SEED] [-f FIRST] [-n CASES] [-c AT_ONCE] DEVICE echo|http PORT
 *
 * The device is up, has 10.7.0.1/16, fd07::1/64 and an MTU of 9000. What a case says and how it ends
 * follows from SEED and its number; how it is cut and what comes between, also from when answers
 * come. Of an echo server every byte that comes has to be the one sent; an HTTP server has to give
 * the answers that khttpd's parser, in user space, foresees. Prints one line of JSON. Exit status 0;
 * 1 if a case failed, which is told on stderr with its last segments.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

#define AT_ONCE_MAX 1024
#define PORT_FIRST 1024
#define PORTS 64000
#define HISTORY 40
#define MTU 9000
#define MSS (MTU - 60)
#define MSS_USUAL 1400
#define RTO_MS 400
#define STUCK_MS 60000

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32 };

enum end {
	END_FIN, /* all is sent, then FIN, and all is waited for */
	END_RST, /* a reset, somewhere */
	END_VANISH, /* nothing more, somewhere */
	END_HALF_OPEN, /* a SYN and nothing more */
};

/* What is done to a server beyond what it has to be told; see disturb(). */
static const char *const trick_names[] = {
	"again",   "out_of_window", "bad_checksum", "ack_of_unsent",
	"old_ack", "reset_beside",  "syn_inside",   "no_ack_flag",
	"early",   "keepalive",	    "odd_options",  "window",
};

#define TRICKS (sizeof(trick_names) / sizeof(*trick_names))

struct segment {
	bool out;
	uint8_t flags;
	uint32_t seq, ack;
	uint32_t len;
	uint16_t window;
};

enum state { FREE, SYN_SENT, OPEN };

struct peer {
	enum state state;
	unsigned long number;
	uint64_t rng;
	bool v6;
	uint16_t port; /* ours */
	uint8_t addr[16];
	uint32_t iss, irs;
	uint8_t scale; /* of the server's windows */
	bool offers_scale;
	bool large; /* sends segments of up to MSS */
	uint16_t mss; /* that we announce */
	uint32_t una, nxt, max; /* offsets into stream; FIN is the byte behind it */
	uint32_t window; /* the server's */
	uint32_t got; /* offset into the server's stream */
	uint32_t own_window;
	uint64_t reopen; /* when a window that is closed, or tiny, opens; ms */
	bool owe_ack, server_fin;
	enum end end;
	uint32_t end_at; /* bytes acknowledged when it ends, if not by FIN */
	unsigned int trick_percent;
	uint8_t *stream;
	uint32_t len;
	struct http_check http;
	uint64_t began, moved, sent;
	unsigned int history_at;
	struct segment history[HISTORY];
};

static struct peer peers[AT_ONCE_MAX];
static struct peer *by_port[65536];
static unsigned int at_once = 32;
static int tun;
static uint16_t server_port;
static bool http;
static uint64_t seed = 1;
static unsigned long failures, ended, sent_segments, got_segments, fragmented, tricks[TRICKS],
	ends[4], answers, bad_sums;
static uint16_t next_port;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static uint32_t rnd(struct peer *p, uint32_t below)
{
	return wire_random(&p->rng) % below;
}

static uint32_t sum16(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *b = data;
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += b[i] << 8 | b[i + 1];
	if (len & 1)
		sum += b[len - 1] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void put16(uint8_t *to, uint16_t v)
{
	to[0] = v >> 8;
	to[1] = v;
}

static void put32(uint8_t *to, uint32_t v)
{
	put16(to, v >> 16);
	put16(to + 2, v);
}

static uint32_t get32(const uint8_t *from)
{
	return (uint32_t)from[0] << 24 | from[1] << 16 | from[2] << 8 | from[3];
}

static void remember(struct peer *p, struct segment s)
{
	p->history[p->history_at++ % HISTORY] = s;
}

static void fail(struct peer *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void forget(struct peer *p)
{
	by_port[p->port] = NULL;
	free(p->stream);
	p->stream = NULL;
	wire_forget(&p->http);
	p->state = FREE;
	ended++;
}

static void fail(struct peer *p, const char *format, ...)
{
	unsigned int i;
	va_list ap;

	fprintf(stderr, "wire: -s %llu -f %lu -n 1: ", (unsigned long long)seed, p->number);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\n  stream %u, acknowledged %u, sent %u, got %u, window %u, end %d\n",
		p->len, p->una, p->max, p->got, p->window, p->end);
	for (i = 0; i < HISTORY; i++) {
		struct segment *s = &p->history[(p->history_at + i) % HISTORY];

		if (s->flags)
			fprintf(stderr, "  %s flags %02x seq %d ack %d len %u window %u\n",
				s->out ? ">" : "<", s->flags, (int)s->seq, (int)s->ack, s->len,
				s->window);
	}
	failures++;
	forget(p);
}

/*
 * The first @linear bytes are to be where a buffer's head is, and the rest in pages, which the
 * kernel only does with a packet larger than one.
 */
static void emit(const uint8_t *packet, size_t len, size_t linear)
{
	struct virtio_net_hdr head = { .hdr_len = linear < len ? linear : 0 };
	struct iovec parts[] = { { &head, sizeof(head) }, { (void *)packet, len } };

	sent_segments++;
	/* Full: as lost on the way. */
	if (writev(tun, parts, 2) < 0 && errno != EAGAIN && errno != ENOBUFS)
		err(1, "cannot write to the device");
}

/* Cuts an IPv4 packet in two or three. */
static void emit_fragments(struct peer *p, const uint8_t *packet, size_t len)
{
	size_t body = len - 20, off = 0, n;
	uint8_t part[MTU];

	fragmented++;
	while (off < body) {
		n = (8 + rnd(p, body)) & ~7ul;
		if (off + n > body)
			n = body - off;
		memcpy(part, packet, 20);
		memcpy(part + 20, packet + 20 + off, n);
		put16(part + 2, 20 + n);
		put16(part + 6, (off >> 3) | (off + n < body ? 0x2000 : 0));
		put16(part + 10, 0);
		put16(part + 10, fold(sum16(part, 20, 0)));
		emit(part, 20 + n, rnd(p, 200));
		off += n;
	}
}

struct special {
	const uint8_t *options; /* a multiple of 4 */
	size_t options_len;
	bool bad_checksum;
	uint16_t urgent;
	bool may_fragment;
};

/* Sends a segment; @seq and @ack are offsets into the streams. */
static void transmit(struct peer *p, uint8_t flags, uint32_t seq, uint32_t ack, const uint8_t *data,
		     size_t len, const struct special *sp)
{
	static const struct special plain;
	uint8_t packet[MTU] = {}, *tcp = packet + (p->v6 ? 40 : 20);
	uint32_t window = p->own_window > 65535 ? 65535 : p->own_window;
	size_t head, total;
	uint32_t sum;

	if (!sp)
		sp = &plain;
	head = 20 + sp->options_len;
	total = head + len;
	put16(tcp, p->port);
	put16(tcp + 2, server_port);
	put32(tcp + 4, p->iss + 1 + seq);
	put32(tcp + 8, flags & ACK ? p->irs + 1 + ack : ack);
	tcp[12] = head / 4 << 4;
	tcp[13] = flags | (sp->urgent ? URG : 0);
	put16(tcp + 14, window);
	put16(tcp + 18, sp->urgent);
	if (sp->options_len)
		memcpy(tcp + 20, sp->options, sp->options_len);
	if (len)
		memcpy(tcp + head, data, len);
	if (p->v6) {
		packet[0] = 0x60;
		put16(packet + 4, total);
		packet[6] = IPPROTO_TCP;
		packet[7] = 64;
		memcpy(packet + 8, p->addr, 16);
		packet[24] = 0xfd;
		packet[25] = 0x07;
		packet[39] = 1;
		sum = sum16(packet + 8, 32, IPPROTO_TCP + total);
	} else {
		packet[0] = 0x45;
		put16(packet + 2, 20 + total);
		put16(packet + 4, wire_random(&p->rng));
		packet[8] = 64;
		packet[9] = IPPROTO_TCP;
		memcpy(packet + 12, p->addr, 4);
		memcpy(packet + 16, (uint8_t[]){ 10, 7, 0, 1 }, 4);
		put16(packet + 10, fold(sum16(packet, 20, 0)));
		sum = sum16(packet + 12, 8, IPPROTO_TCP + total);
	}
	put16(tcp + 16, fold(sum16(tcp, total, sum)) ^ (sp->bad_checksum ? 0x5555 : 0));
	remember(p, (struct segment){ true, tcp[13], seq, ack, len, window });
	if (sp->may_fragment && !p->v6 && total > 24)
		emit_fragments(p, packet, 20 + total);
	else
		emit(packet, (p->v6 ? 40 : 20) + total,
		     rnd(p, 4) ? tcp + head - packet : rnd(p, 200));
}

static void send_ack(struct peer *p)
{
	p->owe_ack = false;
	transmit(p, ACK, p->max, p->got + p->server_fin, NULL, 0, NULL);
}

/* A reset for what nobody knows, as a host sends that has been started anew. */
static void refuse(const uint8_t *packet, bool v6, const uint8_t *tcp, size_t len)
{
	struct peer nobody = { .v6 = v6, .port = tcp[2] << 8 | tcp[3] };

	if (tcp[13] & RST)
		return;
	memcpy(nobody.addr, packet + (v6 ? 24 : 16), v6 ? 16 : 4);
	nobody.iss = get32(tcp + 8) - 1;
	nobody.irs = get32(tcp + 4) - 1;
	transmit(&nobody, RST | ACK, 0, len + !!(tcp[13] & (SYN | FIN)), NULL, 0, NULL);
}

static void send_syn(struct peer *p)
{
	uint8_t options[12] = { 2, 4, p->mss >> 8, p->mss, 1, 3, 3, 7, 1, 1, 4, 2 };
	struct special sp = { .options = options, .options_len = p->offers_scale ? 12 : 4 };

	transmit(p, SYN, -1, 0, NULL, 0, &sp);
	p->sent = now_ms();
}

static void begin(struct peer *p, unsigned long number)
{
	uint32_t n = number + 2;
	uint64_t state = seed; /* from here to a place far from that of any other seed */

	memset(p, 0, sizeof(*p));
	p->number = number;
	p->rng = wire_random(&state) + number;
	do {
		p->port = PORT_FIRST + next_port++ % PORTS;
	} while (by_port[p->port]);
	by_port[p->port] = p;
	p->v6 = rnd(p, 3) == 0;
	if (p->v6) {
		memcpy(p->addr, (uint8_t[]){ 0xfd, 0x07 }, 2);
		put32(p->addr + 12, n);
	} else {
		memcpy(p->addr, (uint8_t[]){ 10, 7, 1 + n / 250 % 250, 1 + n % 250 }, 4);
	}
	p->iss = rnd(p, 3) ? wire_random(&p->rng) : -1 - rnd(p, 3000);
	p->mss = rnd(p, 4) ? 1460 : 64 + rnd(p, MSS - 64);
	p->offers_scale = rnd(p, 2);
	p->large = rnd(p, 5) == 0;
	if (p->large)
		p->len = rnd(p, 200000);
	else
		p->len = rnd(p, 10) ? rnd(p, 3000) : rnd(p, 60000);
	p->own_window = 65535;
	if (rnd(p, 8) == 0) {
		/* TCP feeds it by its probes alone, ever more slowly. */
		p->own_window = 1 + rnd(p, 50);
		p->reopen = now_ms() + rnd(p, 2000);
	}
	p->trick_percent = rnd(p, 3) ? rnd(p, 60) : 0;
	switch (rnd(p, 20)) {
	case 0:
	case 1:
		p->end = END_RST;
		break;
	case 2:
		p->end = END_VANISH;
		break;
	case 3:
		p->end = END_HALF_OPEN;
		break;
	}
	ends[p->end]++;
	if (http)
		p->stream = wire_requests(&p->rng, &p->len, &p->http);
	else
		p->stream = wire_bytes(&p->rng, p->len);
	p->end_at = p->end ? rnd(p, p->len + 1) : 0;
	p->state = SYN_SENT;
	p->began = p->moved = now_ms();
	send_syn(p);
}

static void parse_options(struct peer *p, const uint8_t *tcp, size_t head)
{
	size_t i;

	for (i = 20; i < head && tcp[i]; i += tcp[i] == 1 ? 1 : tcp[i + 1]) {
		if (tcp[i] == 3)
			p->scale = tcp[i + 2];
		if (tcp[i] > 1 && (i + 1 >= head || tcp[i + 1] < 2))
			break;
	}
}

/* Returns false if the case is over. */
static bool take_data(struct peer *p, uint32_t off, const uint8_t *data, uint32_t len)
{
	uint32_t skip;

	if (off > p->got || off + len < p->got) /* a hole, or all of it old */
		return true;
	if (!http && (off + len > p->max || memcmp(data, p->stream + off, len))) {
		fail(p, "what came back is not what was sent, at %u, %u bytes", off, len);
		return false;
	}
	skip = p->got - off;
	if (skip == len)
		return true;
	p->got += len - skip;
	p->moved = now_ms();
	if (http) {
		const char *wrong = wire_check(&p->http, (const char *)data + skip, len - skip);

		if (wrong) {
			fail(p, "answer %u: %s", p->http.answers, wrong);
			return false;
		}
	}
	return true;
}

static void finish(struct peer *p)
{
	const char *wrong;

	if (!http && p->got != p->len) {
		fail(p, "FIN after %u of %u bytes", p->got, p->len);
		return;
	}
	if (http) {
		wrong = wire_check_end(&p->http);
		if (wrong) {
			fail(p, "after answer %u of %u: %s", p->http.answers, p->http.wanted,
			     wrong);
			return;
		}
		answers += p->http.answers;
	}
	forget(p);
}

static void receive(struct peer *p, const uint8_t *tcp, size_t len)
{
	size_t head = tcp[12] >> 4 << 2;
	uint32_t seq = get32(tcp + 4), ack = get32(tcp + 8) - p->iss - 1, data_len = len - head;
	uint8_t flags = tcp[13];
	bool fresh;

	remember(p, (struct segment){ false, flags, seq - p->irs - 1, ack, data_len,
				      tcp[14] << 8 | tcp[15] });
	got_segments++;
	if (flags & RST) {
		if (p->state == SYN_SENT && ack)
			return; /* an older connection's */
		if (p->state == SYN_SENT)
			fail(p, "connection refused");
		else if (p->server_fin && p->una > p->len)
			finish(p); /* all is done: a FIN of the server's was sent twice, and so acknowledged */
		else
			fail(p, "reset by the server");
		return;
	}
	if (p->state == SYN_SENT) {
		if ((flags & (SYN | ACK)) != (SYN | ACK) || ack) {
			/* Of a connection that this end knows nothing of any more. */
			transmit(p, RST, ack, 0, NULL, 0, NULL);
			return;
		}
		p->irs = seq;
		parse_options(p, tcp, head);
		p->window = tcp[14] << 8 | tcp[15];
		p->moved = now_ms();
		if (p->end == END_HALF_OPEN) {
			forget(p);
			return;
		}
		p->state = OPEN;
		send_ack(p);
		return;
	}
	if (flags & SYN) { /* our ACK was lost */
		send_ack(p);
		return;
	}
	if (ack > p->len + 1 || ack > p->max) {
		fail(p, "acknowledges %u of %u", ack, p->max);
		return;
	}
	if (ack > p->una) {
		p->una = ack;
		p->moved = p->sent = now_ms();
		if (p->nxt < p->una)
			p->nxt = p->una;
	}
	p->window = (uint32_t)(tcp[14] << 8 | tcp[15]) << p->scale;
	if (!take_data(p, seq - p->irs - 1, tcp + head, data_len))
		return;
	fresh = flags & FIN && seq - p->irs - 1 + data_len == p->got && !p->server_fin;
	if (fresh) {
		p->server_fin = true;
		p->moved = now_ms();
	}
	if (data_len || flags & FIN) {
		p->owe_ack = true;
		if (fresh || rnd(p, 10) < 7)
			send_ack(p);
	}
}

static void read_all(void)
{
	static uint8_t buffer[sizeof(struct virtio_net_hdr) + 65536];
	uint8_t *packet = buffer + sizeof(struct virtio_net_hdr), *tcp;
	struct peer *p;
	ssize_t n;
	bool v6;

	while ((n = read(tun, buffer, sizeof(buffer))) > 0) {
		v6 = packet[0] >> 4 == 6;
		if ((v6 ? packet[6] : packet[9]) != IPPROTO_TCP)
			continue;
		tcp = packet + (v6 ? 40 : 20);
		n -= tcp - buffer;
		if (n < 20 || (tcp[0] << 8 | tcp[1]) != server_port)
			continue;
		if (fold(sum16(packet + (v6 ? 8 : 12), v6 ? 32 : 8,
			       sum16(tcp, n, IPPROTO_TCP + n)))) {
			bad_sums++;
			continue;
		}
		p = by_port[tcp[2] << 8 | tcp[3]];
		if (p && p->v6 == v6 && !memcmp(p->addr, packet + (v6 ? 24 : 16), v6 ? 16 : 4))
			receive(p, tcp, n);
		else
			refuse(packet, v6, tcp, n - (tcp[12] >> 4 << 2));
	}
	if (n < 0 && errno != EAGAIN)
		err(1, "cannot read from the device");
}

/* One thing that no peer should do, and that must change nothing. */
static void disturb(struct peer *p)
{
	uint8_t junk[600], options[8] = { 253, 0, 1, 1, 8, 200, 0, 0 };
	struct special sp = {};
	uint32_t trick = rnd(p, TRICKS), n = 1 + rnd(p, sizeof(junk)), at, i,
		 server = p->got + p->server_fin;
	unsigned long sent = sent_segments;

	for (i = 0; i < n; i++)
		junk[i] = rnd(p, 256);
	switch (trick) {
	case 0: /* what was sent before */
		at = p->max ? rnd(p, p->max) : 0;
		if (at < p->len && at < p->max) {
			n = 1 + rnd(p, p->max - at);
			n = n > MSS_USUAL ? MSS_USUAL : n;
			n = at + n > p->len ? p->len - at : n;
			transmit(p, ACK, at, server, p->stream + at, n, NULL);
		}
		break;
	case 1:
		transmit(p, ACK, p->max + 0x20000000 + rnd(p, 0x20000000), server, junk, n, NULL);
		break;
	case 2:
		sp.bad_checksum = true;
		transmit(p, ACK, p->nxt, server, junk, n, &sp);
		break;
	case 3:
		transmit(p, ACK, p->nxt, server + 0x1000000 + rnd(p, 0x1000000), junk, n, NULL);
		break;
	case 4:
		transmit(p, ACK, p->max, server - rnd(p, server + 1), NULL, 0, NULL);
		break;
	case 5: /* one byte off, or far off */
		transmit(p, RST, rnd(p, 2) ? p->una + 0x30000000 : p->max + 1 + rnd(p, 100), 0,
			 NULL, 0, NULL);
		break;
	case 6:
		transmit(p, SYN, p->max + rnd(p, 1000), 0, NULL, 0, NULL);
		break;
	case 7:
		transmit(p, 0, p->nxt, 0, junk, n, NULL);
		break;
	case 8: /* behind a hole */
		at = p->nxt + 1 + rnd(p, 2000);
		if (at < p->len && at - p->una < p->window) {
			n = 1 + rnd(p, p->len - at < 1000 ? p->len - at : 1000);
			if (at + n - p->una > p->window)
				n = p->window - (at - p->una);
			transmit(p, ACK, at, server, p->stream + at, n, NULL);
			if (at + n > p->max)
				p->max = at + n;
		}
		break;
	case 9:
		transmit(p, ACK, p->una - 1, server, junk, rnd(p, 2), NULL);
		break;
	case 10:
		sp.options = options;
		sp.options_len = sizeof(options);
		transmit(p, ACK, p->max, server, NULL, 0, &sp);
		break;
	case 11:
		if (p->own_window > 1000 && !p->reopen) {
			p->own_window = 0;
			p->reopen = now_ms() + rnd(p, 300);
			send_ack(p);
		}
		break;
	}
	tricks[trick] += sent_segments != sent;
}

static void send_next(struct peer *p)
{
	uint32_t room = p->una + p->window > p->nxt ? p->una + p->window - p->nxt : 0;
	struct special sp = {};
	uint32_t n = p->nxt < p->len ? p->len - p->nxt : 0, most;
	uint8_t flags = ACK;

	if (p->nxt > p->len)
		return;
	most = rnd(p, 3) ? (p->large ? MSS : MSS_USUAL) : 1 + rnd(p, 30);
	if (n > room)
		n = room;
	if (n > most)
		n = most;
	if (p->nxt + n == p->len)
		flags |= FIN;
	if (!n && !(flags & FIN))
		return;
	if (rnd(p, 20) == 0)
		sp.urgent = 1 + rnd(p, n + 2);
	sp.may_fragment = rnd(p, 30) == 0;
	if (rnd(p, 2))
		flags |= PSH;
	p->owe_ack = false;
	transmit(p, flags, p->nxt, p->got + p->server_fin, p->stream + p->nxt, n, &sp);
	p->nxt += n + (flags & FIN);
	if (p->nxt > p->max)
		p->max = p->nxt;
	p->sent = now_ms();
}

static void step(struct peer *p)
{
	uint64_t now = now_ms();
	unsigned int i;

	if (now - p->moved > STUCK_MS) {
		fail(p, "nothing has moved for a minute");
		return;
	}
	if (p->state == SYN_SENT) {
		if (now - p->sent > RTO_MS)
			send_syn(p);
		return;
	}
	if (p->end != END_FIN && p->una >= p->end_at) {
		if (p->end == END_RST)
			transmit(p, RST, p->max, 0, NULL, 0, NULL);
		forget(p);
		return;
	}
	if (p->reopen && now >= p->reopen) {
		p->reopen = 0;
		p->own_window = 65535;
		p->owe_ack = true;
	}
	if (p->una != p->nxt && now - p->sent > RTO_MS)
		p->nxt = p->una;
	for (i = 1 + rnd(p, 4); i; i--) {
		if (rnd(p, 100) < p->trick_percent)
			disturb(p);
		send_next(p);
	}
	if (p->owe_ack)
		send_ack(p);
	/* An HTTP server may close before it has all, and then discards the rest. */
	if (p->server_fin && (p->una > p->len || (http && p->nxt > p->len)))
		finish(p);
}

static void open_device(const char *name)
{
	struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };

	tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	if (tun < 0)
		err(2, "/dev/net/tun");
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(tun, TUNSETIFF, &ifr))
		err(2, "%s", name);
}

static void report(uint64_t began)
{
	size_t i;

	printf("{\"seed\": %llu, \"cases\": %lu, \"failures\": %lu, \"seconds\": %.1f, \"sent\": %lu, \"received\": %lu, "
	       "\"bad_sums\": %lu, \"fragmented\": %lu, \"answers\": %lu, \"fin\": %lu, \"reset\": %lu, \"vanished\": %lu, \"half_open\": %lu",
	       (unsigned long long)seed, ended, failures, (now_ms() - began) / 1000.0,
	       sent_segments, got_segments, bad_sums, fragmented, answers, ends[0], ends[1],
	       ends[2], ends[3]);
	for (i = 0; i < TRICKS; i++)
		printf(", \"%s\": %lu", trick_names[i], tricks[i]);
	printf("}\n");
}

int main(int argc, char **argv)
{
	unsigned long number = 0, last, cases = 1000;
	uint64_t began = now_ms();
	unsigned int i, busy;
	int opt;

	while ((opt = getopt(argc, argv, "s:f:n:c:")) != -1) {
		switch (opt) {
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'f':
			number = strtoul(optarg, NULL, 0);
			break;
		case 'n':
			cases = strtoul(optarg, NULL, 0);
			break;
		case 'c':
			at_once = strtoul(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 3 || at_once < 1 || at_once > AT_ONCE_MAX)
		errx(2,
		     "usage: wire [-s SEED] [-f FIRST] [-n CASES] [-c AT_ONCE] DEVICE echo|http PORT");
	open_device(argv[optind]);
	http = !strcmp(argv[optind + 1], "http");
	server_port = atoi(argv[optind + 2]);
	last = number + cases;
	next_port = number; /* other ports than a run before, whose connections may linger */
	do {
		read_all();
		for (i = busy = 0; i < at_once; i++) {
			if (peers[i].state == FREE && number < last && failures < 10)
				begin(&peers[i], number++);
			else if (peers[i].state != FREE)
				step(&peers[i]);
			busy += peers[i].state != FREE;
		}
		poll(&(struct pollfd){ .fd = tun, .events = POLLIN }, 1, 2);
	} while (busy || (number < last && failures < 10));
	report(began);
	return failures > 0 || bad_sums > 0;
}
