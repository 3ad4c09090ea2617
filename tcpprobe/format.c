// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * format.c - a record as a line of text. Thirty numbers a line are most of what reading costs:
 * vsnprintf() would be too slow.
 */
#include <linux/kernel.h>
#include <net/ipv6.h>

#include "decimal.h"
#include "probe.h"

static char *put(char *out, u64 value)
{
	out = decimal_put(out, value);
	*out++ = ' ';
	return out;
}

static char *put_address(char *out, const struct in6_addr *addr)
{
	unsigned int i;

	if (!ipv6_addr_v4mapped(addr)) {
		out += sprintf(out, "%pI6c ", addr);
		return out;
	}
	for (i = 12; i < 16; i++) {
		out = put(out, addr->s6_addr[i]);
		out[-1] = i < 15 ? '.' : ' ';
	}
	return out;
}

size_t probe_format(const struct probe_record *rec, u64 start, char *out)
{
	u64 seconds = rec->time > start ? rec->time - start : 0;
	u32 nanoseconds = do_div(seconds, NSEC_PER_SEC);
	static const char digits[] = "0123456789abcdef";
	const char *begin = out;

	out = put(out, rec->type);
	out = put(out, seconds);
	out[-1] = '.';
	out = decimal_put_padded(out, nanoseconds, 9);
	*out++ = ' ';
	out = put_address(out, &rec->local);
	out = put(out, rec->local_port);
	out = put_address(out, &rec->remote);
	out = put(out, rec->remote_port);
	out = put(out, rec->length);
	*out++ = '0';
	*out++ = 'x';
	if (rec->flags >> 8)
		*out++ = digits[rec->flags >> 8 & 15];
	if (rec->flags >> 4)
		*out++ = digits[rec->flags >> 4 & 15];
	*out++ = digits[rec->flags & 15];
	*out++ = ' ';
	out = put(out, rec->seq);
	out = put(out, rec->ack);
	out = put(out, rec->ca_state);
	out = put(out, rec->snd_nxt);
	out = put(out, rec->snd_una);
	out = put(out, rec->write_seq);
	out = put(out, rec->write_seq - rec->snd_una);
	out = put(out, rec->snd_cwnd);
	out = put(out, rec->ssthresh);
	out = put(out, rec->snd_wnd);
	out = put(out, rec->srtt);
	out = put(out, rec->mdev);
	out = put(out, rec->rttvar);
	out = put(out, rec->rto);
	out = put(out, rec->packets_out);
	out = put(out, rec->lost_out);
	out = put(out, rec->sacked_out);
	out = put(out, rec->retrans_out);
	out = put(out, rec->retrans);
	out = put(out, rec->frto);
	out = put(out, rec->rto_num);
	out = put(out, rec->pacing);
	out[-1] = '\n';
	return out - begin;
}
