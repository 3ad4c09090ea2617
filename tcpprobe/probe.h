/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * probe.h - tcpprobe's parts and how they hang together.
 *
 *	hooks.c		kprobes on TCP's functions; only while somebody has the file open. A handler
 *			reads the socket, looks its flow up (flow.c) and puts a record into the ring
 *			of its CPU (ring.c). It never calls or changes anything in TCP.
 *	proc.c		/proc/net/tcpprobe: takes records out of all rings by time
 *	format.c	makes text of them
 *	sysctl.c	/proc/sys/net/tcpprobe_plus, and module parameters of the same names
 *	stat.c		/proc/net/stat/tcpprobe_plus
 *
 * A handler runs with interrupts off, which it sees to itself: whatever it shares with process
 * context is read once, or guarded by raw spinlocks that are taken with interrupts off. A region
 * with interrupts off is an RCU read-side section, so what handlers may still be using (rings, flow
 * tables) is freed after synchronize_rcu().
 *
 * probe_mutex guards opening, closing, and changes of sizes: hooks are armed and disarmed, rings
 * and tables made and freed under it. probe_read_mutex nests inside and makes the one consumer that
 * a ring can have.
 */
#ifndef TCPPROBE_PROBE_H
#define TCPPROBE_PROBE_H

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/printk.h>
#include <linux/types.h>
#include <net/sock.h>

/**
 * enum sample_type - what a record is about; the first field of a line
 * @PROBE_RECV: a segment arrived
 * @PROBE_SEND: a segment is sent, or sent again
 * @PROBE_TIMEOUT: the retransmission timer ran out
 * @PROBE_SETUP: a connection is established
 * @PROBE_DONE: a connection is closed: its last record
 * @PROBE_PURGE: a flow was forgotten because nothing had happened on it for long
 */
enum sample_type {
	PROBE_RECV,
	PROBE_SEND,
	PROBE_TIMEOUT,
	PROBE_SETUP,
	PROBE_DONE,
	PROBE_PURGE,
};

#define PROBE_LENGTH_DONE 65535 /* length of a connection's last record */

/**
 * struct probe_record - a sample; the fields of a line that have to be known when it is taken
 * @time: CLOCK_MONOTONIC, ns
 * @lost: records that this CPU's ring had lost before it
 * @pacing: sk_pacing_rate, bytes/s
 * @local: address here; IPv4 as ::ffff:a.b.c.d
 * @remote: the peer's
 * @local_port: host byte order
 * @remote_port: host byte order
 * @length: payload bytes of the segment
 * @flags: TCP flags of the segment, nine bits since Linux 7 has AE
 * @seq: of the segment; relative as all sequence numbers here
 * @ack: of the segment
 * @snd_nxt: struct tcp_sock's, as those that follow
 * @snd_una: first byte not acknowledged
 * @write_seq: end of what the program has written
 * @snd_cwnd: congestion window, segments
 * @ssthresh: slow start threshold, segments
 * @snd_wnd: the peer's window, bytes
 * @srtt: smoothed round trip time, 1/8 us
 * @mdev: medium deviation, 1/4 us
 * @rttvar: smoothed maximum of it, 1/4 us
 * @rto: icsk_rto, ms
 * @packets_out: segments in flight
 * @lost_out: of those, taken for lost
 * @sacked_out: of those, selectively acknowledged
 * @retrans_out: of those, sent again
 * @retrans: total_retrans
 * @type: enum sample_type
 * @ca_state: icsk_ca_state
 * @frto: F-RTO is under way
 * @rto_num: icsk_retransmits, time-outs in a row
 */
struct probe_record {
	u64 time;
	u64 lost;
	u64 pacing;
	struct in6_addr local;
	struct in6_addr remote;
	u16 local_port;
	u16 remote_port;
	u16 length;
	u16 flags;
	u32 seq;
	u32 ack;
	u32 snd_nxt;
	u32 snd_una;
	u32 write_seq;
	u32 snd_cwnd;
	u32 ssthresh;
	u32 snd_wnd;
	u32 srtt;
	u32 mdev;
	u32 rttvar;
	u32 rto;
	u32 packets_out;
	u32 lost_out;
	u32 sacked_out;
	u32 retrans_out;
	u32 retrans;
	u8 type;
	u8 ca_state;
	u8 frto;
	u8 rto_num;
};

/**
 * struct probe_stat - a CPU's counters, written with interrupts off on that CPU only
 * @search: flows looked up
 * @found: of those, found
 * @fresh: flows taken on
 * @reset: flows whose socket turned out to be another connection's by now
 * @purging: samples not taken because the flow was being purged
 * @ring_full: samples lost because the ring was full
 * @maxflows: samples not taken because there were maxflows flows
 * @no_memory: samples not taken because there was no memory for the flow
 * @taken: samples: those in a ring, and those lost
 */
struct probe_stat {
	u64 search;
	u64 found;
	u64 fresh;
	u64 reset;
	u64 purging;
	u64 ring_full;
	u64 maxflows;
	u64 no_memory;
	u64 taken;
};

DECLARE_PER_CPU(struct probe_stat, probe_stats);

/**
 * struct probe_totals - counters of the readers; written under probe_read_mutex
 * @read: records that were made text
 * @discarded: records in the rings when the last reader closed
 * @multiple_reader: opens while somebody else had the file open
 * @copy_failed: reads into a buffer that was not there
 */
struct probe_totals {
	atomic64_t read;
	atomic64_t discarded;
	atomic64_t multiple_reader;
	atomic64_t copy_failed;
};

extern struct probe_totals probe_totals;
extern struct mutex probe_mutex;
extern struct mutex probe_read_mutex;

/* Parameters, see sysctl.c; read once where they are used. */
extern unsigned int probe_bufsize, probe_readnum, probe_debug, probe_full, probe_hashsize;
extern unsigned int probe_maxflows, probe_port, probe_time, probe_purgetime;

/* A log line if sysctl debug is at least @level. From handlers too: ratelimited. */
#define probe_say(level, ...)                             \
	do {                                              \
		if (READ_ONCE(probe_debug) >= (level))    \
			pr_info_ratelimited(__VA_ARGS__); \
	} while (0)

/**
 * probe_may_take() - whether there is memory enough to try for so much of it
 * @size: bytes
 *
 * vmalloc would rather have another process killed than fail.
 *
 * Return: whether that leaves others half of what is available.
 */
static inline bool probe_may_take(u64 size)
{
	return size >> PAGE_SHIFT <= si_mem_available() / 2;
}

/* --- flow.c --- */

/**
 * struct probe_bases - what a flow's sequence numbers are counted from
 * @local: our space
 * @remote: the peer's
 */
struct probe_bases {
	u32 local;
	u32 remote;
};

int probe_flows_start(void);
void probe_flows_stop(void);
void probe_flows_drain(void); /* no work of ours is pending from here on */
int probe_flows_resize(unsigned int buckets);
int probe_flows_narrow(unsigned int port); /* forgets those that have another, without a record */

/**
 * probe_flow() - find or take on the flow of a socket, and judge whether to sample
 * @sk: the socket
 * @rec: type, time, addresses, ports and cwnd filled in
 * @first: what the bases are if the flow is new; @first->remote is 0 while the peer's is unknown
 * @bases: the flow's
 *
 * Interrupts are off. Return: whether to take the sample.
 */
bool probe_flow(const struct sock *sk, const struct probe_record *rec,
		const struct probe_bases *first, struct probe_bases *bases);

unsigned int probe_flows_active(void);
unsigned int probe_flows_buckets(void);
size_t probe_flows_memory(void);
size_t probe_flows_table_memory(void);

/* --- ring.c --- */

int probe_rings_start(void);
void probe_rings_stop(void);

/**
 * probe_rings_resize() - new rings; the old ones are read to their end first
 * @records: per CPU; rounded up to a power of two
 *
 * Return: 0, -ENOMEM, or -EBUSY if too many old rings still wait to be read.
 */
int probe_rings_resize(unsigned int records);

/**
 * probe_ring_put() - put a record into this CPU's ring, or count it as lost
 * @rec: all but @lost filled in
 *
 * Interrupts are off.
 */
void probe_ring_put(struct probe_record *rec);

/**
 * probe_rings_get() - take the oldest record out of all rings
 * @rec: filled in
 * @lost: how many records are missing before it; also if there is no record
 *
 * The caller holds probe_read_mutex. Return: whether there was a record.
 */
bool probe_rings_get(struct probe_record *rec, u64 *lost);

/* How many records there are, roughly. */
unsigned long probe_rings_count(void);
size_t probe_rings_memory(void);

/* --- hooks.c --- */

int probe_hooks_arm(void);
void probe_hooks_disarm(void);
void probe_hooks_exit(void);
unsigned long probe_hooks_missed(void);
struct seq_file;
void probe_hooks_show(struct seq_file *seq);

/* --- format.c --- */

#define PROBE_LINE_MAX 512 /* bytes; the longest line is shorter */

/**
 * probe_format() - make a line of a record
 * @rec: the record
 * @start: time that lines count from, ns
 * @out: room for PROBE_LINE_MAX bytes
 *
 * Return: how many bytes, the newline among them.
 */
size_t probe_format(const struct probe_record *rec, u64 start, char *out);

/* --- proc.c, sysctl.c, stat.c --- */

int probe_proc_init(void);
void probe_proc_exit(void);
int probe_sysctl_init(void);
void probe_sysctl_exit(void);
int probe_stat_init(void);
void probe_stat_exit(void);

#endif /* TCPPROBE_PROBE_H */
