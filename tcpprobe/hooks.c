// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * hooks.c - kprobes at the entry of TCP's functions, and the samples they take.
 *
 * The functions hooked, and why these: tcp_rcv_established() sees what arrives while a connection
 * is open both ways, tcp_rcv_state_process() what arrives once one side has closed;
 * __tcp_transmit_skb() all that a connection sends; tcp_init_transfer() every connection that is
 * established, whoever opened it; tcp_set_state(TCP_CLOSE) every one that ends, however.
 */
#include <linux/kprobes.h>
#include <linux/seq_file.h>
#include <net/tcp.h>

#include "compat.h"
#include "probe.h"

#ifdef CONFIG_PREEMPT_RT
#error "handlers allocate with interrupts off: PREEMPT_RT is not supported"
#endif

DEFINE_PER_CPU(struct probe_stat, probe_stats);

static bool is_port_meant(const struct inet_sock *inet)
{
	unsigned int port = READ_ONCE(probe_port);

	return !port || port == inet->inet_num || port == ntohs(inet->inet_dport);
}

static void read_addresses(const struct sock *sk, struct probe_record *rec)
{
	rec->local_port = sk->sk_num;
	rec->remote_port = ntohs(sk->sk_dport);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		rec->local = sk->sk_v6_rcv_saddr;
		rec->remote = sk->sk_v6_daddr;
		return;
	}
#endif
	ipv6_addr_set_v4mapped(sk->sk_rcv_saddr, &rec->local);
	ipv6_addr_set_v4mapped(sk->sk_daddr, &rec->remote);
}

static void read_variables(const struct sock *sk, struct probe_record *rec)
{
	const struct inet_connection_sock *icsk = inet_csk(sk);
	const struct tcp_sock *tp = tcp_sk(sk);

	rec->pacing = READ_ONCE(sk->sk_pacing_rate);
	rec->snd_nxt = tp->snd_nxt;
	rec->snd_una = tp->snd_una;
	rec->write_seq = tp->write_seq;
	rec->snd_cwnd = tp->snd_cwnd;
	rec->ssthresh = tp->snd_ssthresh;
	rec->snd_wnd = tp->snd_wnd;
	rec->srtt = tp->srtt_us;
	rec->mdev = tp->mdev_us;
	rec->rttvar = tp->rttvar_us;
	rec->rto = jiffies_to_msecs(icsk->icsk_rto);
	rec->packets_out = tp->packets_out;
	rec->lost_out = tp->lost_out;
	rec->sacked_out = tp->sacked_out;
	rec->retrans_out = tp->retrans_out;
	rec->retrans = tp->total_retrans;
	rec->ca_state = icsk->icsk_ca_state;
	rec->frto = tp->frto;
	rec->rto_num = icsk->icsk_retransmits;
}

static u32 earlier(u32 a, u32 b)
{
	return before(a, b) ? a : b;
}

/**
 * struct segment - what is sampled
 * @seq: its sequence number
 * @ack: what it acknowledges; valid if @has_ack
 * @length: its payload, bytes
 * @flags: its TCP flags
 * @sent: by us; @seq is of our space then
 * @has_ack: @ack counts
 */
struct segment {
	u32 seq;
	u32 ack;
	u32 length;
	u16 flags;
	bool sent;
	bool has_ack;
};

static void take_sample(enum sample_type type, const struct sock *sk, const struct segment *seg)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	struct probe_bases first, bases;
	struct probe_record rec;

	rec.type = type;
	rec.time = ktime_get_mono_fast_ns();
	rec.flags = seg->flags;
	rec.length = type == PROBE_DONE ? PROBE_LENGTH_DONE : min_t(u32, seg->length, 65535);
	read_addresses(sk, &rec);
	read_variables(sk, &rec);
	first.local = tp->snd_una;
	first.remote = tp->rcv_nxt;
	if (seg->sent)
		first.local = earlier(first.local, seg->seq);
	else if (seg->has_ack)
		first.local = earlier(first.local, seg->ack);
	if (!seg->sent && first.remote)
		first.remote = earlier(first.remote, seg->seq);

	if (probe_flow(sk, &rec, &first, &bases)) {
		rec.snd_nxt -= bases.local;
		rec.snd_una -= bases.local;
		rec.write_seq -= bases.local;
		rec.seq = seg->seq - (seg->sent ? bases.local : bases.remote);
		rec.ack = seg->has_ack ? seg->ack - (seg->sent ? bases.remote : bases.local) : 0;
		probe_ring_put(&rec);
		probe_say(2, "sample type %u %pI6c %u %pI6c %u length %u\n", rec.type, &rec.local,
			  rec.local_port, &rec.remote, rec.remote_port, rec.length);
	}
}

/* A segment that arrived; @skb begins with its TCP header. */
static void sample_received(enum sample_type type, const struct sock *sk, const struct sk_buff *skb)
{
	const struct segment seg = {
		.seq = TCP_SKB_CB(skb)->seq,
		.ack = TCP_SKB_CB(skb)->ack_seq,
		.length = skb->len - tcp_hdrlen(skb),
		.flags = TCP_SKB_CB(skb)->tcp_flags,
		.has_ack = TCP_SKB_CB(skb)->tcp_flags & TCPHDR_ACK,
	};

	take_sample(type, sk, &seg);
}

/* An event without a segment. */
static void sample_event(enum sample_type type, const struct sock *sk, u32 seq)
{
	const struct segment seg = {
		.seq = seq,
		.ack = tcp_sk(sk)->rcv_nxt,
		.sent = true,
		.has_ack = tcp_sk(sk)->rcv_nxt,
	};

	take_sample(type, sk, &seg);
}

static const struct sock *sk_of(struct pt_regs *regs)
{
	return (const struct sock *)regs_get_kernel_argument(regs, 0);
}

static const struct sk_buff *skb_of(struct pt_regs *regs, unsigned int n)
{
	return (const struct sk_buff *)regs_get_kernel_argument(regs, n);
}

static void on_rcv_established(struct pt_regs *regs)
{
	const struct sock *sk = sk_of(regs);

	if (is_port_meant(inet_sk(sk)))
		sample_received(PROBE_RECV, sk, skb_of(regs, 1));
}

static void on_rcv_state_process(struct pt_regs *regs)
{
	const struct sock *sk = sk_of(regs);
	u32 states = TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_CLOSE_WAIT | TCPF_LAST_ACK |
		     TCPF_CLOSING;

	/* Of others what completes the handshake is their set-up's; that of these came before. */
	if (sk->sk_state == TCP_SYN_RECV && rcu_access_pointer(tcp_sk(sk)->fastopen_rsk))
		states |= TCPF_SYN_RECV;
	if ((1 << sk->sk_state) & states && is_port_meant(inet_sk(sk)))
		sample_received(PROBE_RECV, sk, skb_of(regs, 1));
}

static void on_transmit(struct pt_regs *regs)
{
	const struct sk_buff *skb = skb_of(regs, 1);
	const struct sock *sk = sk_of(regs);
	struct segment seg;

	/* The reset that a socket sends once it is closed follows its last record. */
	if (!skb || sk->sk_state == TCP_CLOSE || !is_port_meant(inet_sk(sk)))
		return;
	seg.seq = TCP_SKB_CB(skb)->seq;
	seg.ack = regs_get_kernel_argument(regs, 4);
	seg.length = skb->len;
	seg.flags = TCP_SKB_CB(skb)->tcp_flags;
	seg.sent = true;
	seg.has_ack = seg.flags & TCPHDR_ACK;
	take_sample(PROBE_SEND, sk, &seg);
}

static void on_timeout(struct pt_regs *regs)
{
	const struct sock *sk = sk_of(regs);

	if (is_port_meant(inet_sk(sk)))
		sample_event(PROBE_TIMEOUT, sk, tcp_sk(sk)->snd_una);
}

static void on_setup(struct pt_regs *regs)
{
	const struct sk_buff *skb = skb_of(regs, 2);
	const struct sock *sk = sk_of(regs);

	if (!is_port_meant(inet_sk(sk)))
		return;
	if (skb)
		sample_received(PROBE_SETUP, sk, skb);
	else
		sample_event(PROBE_SETUP, sk, tcp_sk(sk)->snd_nxt);
}

static void on_set_state(struct pt_regs *regs)
{
	const struct sock *sk = sk_of(regs);

	if ((int)regs_get_kernel_argument(regs, 1) != TCP_CLOSE)
		return;
	/* A child that lost the race to become the connection has no port any more. */
	if (sk->sk_state == TCP_CLOSE || sk->sk_state == TCP_LISTEN || !sk->sk_num)
		return;
	if (is_port_meant(inet_sk(sk)))
		sample_event(PROBE_DONE, sk, tcp_sk(sk)->snd_nxt);
}

/**
 * struct hook - a function of TCP's, and what to do there
 * @what: for the statistics
 * @symbol: the function's name
 * @take: samples it; hard interrupts are off
 * @kp: at its entry
 * @err: 0 armed; 1 not asked for yet; else why it is not, a negative errno
 * @stuck: could not be taken back: the kernel may call it until the next boot
 */
struct hook {
	const char *what;
	const char *symbol;
	void (*take)(struct pt_regs *regs);
	struct kprobe kp;
	int err;
	bool stuck;
};

static struct hook hooks[] = {
	{ .what = "recv", .symbol = "tcp_rcv_established", .take = on_rcv_established, .err = 1 },
	{ .what = "recv",
	  .symbol = "tcp_rcv_state_process",
	  .take = on_rcv_state_process,
	  .err = 1 },
	{ .what = "send", .symbol = "__tcp_transmit_skb", .take = on_transmit, .err = 1 },
	{ .what = "timeout", .symbol = "tcp_retransmit_timer", .take = on_timeout, .err = 1 },
	{ .what = "setup", .symbol = "tcp_init_transfer", .take = on_setup, .err = 1 },
	{ .what = "done", .symbol = "tcp_set_state", .take = on_set_state, .err = 1 },
};

/* Somebody has the file open. Set under probe_mutex; hooks that are stuck are called without. */
static bool armed;

/*
 * With interrupts off, so that records of one CPU are in order of time. What an interrupt that
 * waited meanwhile receives is lost all the same: the kernel drops hits until it is through here.
 */
static int on_hit(struct kprobe *kp, struct pt_regs *regs)
{
	unsigned long flags;

	if (unlikely(!READ_ONCE(armed)))
		return 0;
	local_irq_save(flags);
	container_of(kp, struct hook, kp)->take(regs);
	local_irq_restore(flags);
	return 0;
}

/* Hits that the kernel dropped while hooks were armed before; under probe_mutex. */
static unsigned long missed_before;

/* Return: 0 or a negative errno. */
static int arm(struct hook *hook)
{
	int err;

	/* What an earlier registration left in there is refused by the next. */
	hook->kp = (struct kprobe){
		.symbol_name = hook->symbol,
		.pre_handler = on_hit,
	};
	err = register_kprobe(&hook->kp);
	/* Without memory for it 7.x says 0 all the same, and knows of no such hook then. */
	if (!err && enable_kprobe(&hook->kp))
		err = -ENOMEM;
	return err;
}

/*
 * To take a hook back takes memory where it is one of ftrace's. Without, unregister_kprobe() leaves
 * it as it is and tells so by clearing its address. To ask again would spoil the kernel's count of
 * its hooks; so it stays, and the module with it, and does nothing while nobody has the file open.
 */
static void disarm(struct hook *hook)
{
	kprobe_opcode_t *addr = hook->kp.addr;

	if (hook->stuck)
		return;
	unregister_kprobe(&hook->kp);
	if (likely(hook->kp.addr))
		return;
	hook->kp.addr = addr; /* by which the kernel finds it when it is hit */
	hook->stuck = true;
	__module_get(THIS_MODULE);
	pr_warn("no memory to take back the hook at %s: it does nothing, but the module cannot be unloaded any more\n",
		hook->symbol);
}

/*
 * Unloading closes the file under whoever has it open. If a hook stays then, it is too late for the
 * module's count of users to keep it, so whoever unloads it has to.
 */
void probe_hooks_exit(void)
{
	unsigned int i, stuck = 0;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		stuck += hooks[i].stuck;
	if (likely(!stuck))
		return;
	pr_err("%u hooks stay until the next boot, and so does who unloads the module\n", stuck);
	for (;;) {
		set_current_state(TASK_IDLE);
		schedule();
	}
}

int probe_hooks_arm(void)
{
	struct hook *hook, *end = hooks + ARRAY_SIZE(hooks);
	unsigned int n = 0;

	for (hook = hooks; hook < end; hook++) {
		if (hook->stuck)
			continue;
		hook->err = arm(hook);
		n += !hook->err;
	}
	for (hook = hooks; hook < end; hook++) {
		/* The kernel calls one that is stuck as long as it has another to call. */
		if (hook->stuck)
			hook->err = n ? 0 : -EBUSY;
		if (hook->err)
			pr_warn("no hook at %s (%d): its records will be missing\n", hook->symbol,
				hook->err);
		probe_say(1, "hook at %s: %s\n", hook->symbol, hook->err ? "not armed" : "armed");
	}
	if (!n)
		return hooks[0].err;
	WRITE_ONCE(armed, true);
	return 0;
}

void probe_hooks_disarm(void)
{
	unsigned int i;

	/* Whoever has seen it set is waited for by unregister_kprobe(). */
	WRITE_ONCE(armed, false);
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (hooks[i].err)
			continue;
		disarm(&hooks[i]);
		missed_before += hooks[i].kp.nmissed;
		hooks[i].kp.nmissed = 0;
		hooks[i].err = 1;
	}
}

unsigned long probe_hooks_missed(void)
{
	unsigned long sum = missed_before;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (!hooks[i].err)
			sum += hooks[i].kp.nmissed;
	}
	return sum;
}

void probe_hooks_show(struct seq_file *seq)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		seq_printf(seq, "Hook: %s %s ", hooks[i].what, hooks[i].symbol);
		if (!hooks[i].err)
			seq_printf(seq, "armed missed %lu\n", hooks[i].kp.nmissed);
		else if (hooks[i].err > 0)
			seq_puts(seq, "not armed: nobody has the file open\n");
		else
			seq_printf(seq, "not armed: error %d\n", hooks[i].err);
	}
}
