// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kcanary - a congestion control, Reno's, that fills the memory a socket has for it with a pattern,
 * and at each ACK looks whether somebody has written there. BBR and others keep their state in it:
 * who only observes them must not.
 */
#include <linux/module.h>
#include <net/tcp.h>

#define PATTERN 0x5ca1ab1e5ca1ab1eULL
#define WORDS (sizeof_field(struct inet_connection_sock, icsk_ca_priv) / sizeof(u64))

static unsigned int looks;
module_param(looks, uint, 0444);
MODULE_PARM_DESC(looks, "how often it has looked, at one socket at a time");

static void fill(struct sock *sk)
{
	u64 *word = inet_csk_ca(sk);
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		word[i] = PATTERN + i;
}

static void look(struct sock *sk)
{
	const u64 *word = inet_csk_ca(sk);
	unsigned int i;

	/* A SYN that was lost asks for ssthresh() too, ahead of init(). */
	if (!inet_csk(sk)->icsk_ca_initialized)
		return;
	for (i = 0; i < WORDS; i++)
		WARN_ONCE(word[i] != PATTERN + i, "somebody wrote to word %u of my state\n", i);
	WRITE_ONCE(looks, looks + 1);
}

static void avoid(struct sock *sk, u32 ack, u32 acked)
{
	look(sk);
	tcp_reno_cong_avoid(sk, ack, acked);
}

static u32 ssthresh(struct sock *sk)
{
	look(sk);
	return tcp_reno_ssthresh(sk);
}

static struct tcp_congestion_ops canary = {
	.name = "kcanary",
	.owner = THIS_MODULE,
	.init = fill,
	.release = look,
	.ssthresh = ssthresh,
	.cong_avoid = avoid,
	.undo_cwnd = tcp_reno_undo_cwnd,
};

static int __init kcanary_init(void)
{
	return tcp_register_congestion_control(&canary);
}

static void __exit kcanary_exit(void)
{
	tcp_unregister_congestion_control(&canary);
}

module_init(kcanary_init);
module_exit(kcanary_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Looks whether somebody writes to its state, for the tests of tcpprobe");
