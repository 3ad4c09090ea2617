/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * pure.h - what code that runs in the kernel and in user space alike includes: parsers, above all,
 * which tests and fuzzers reach best from user space. Such code allocates nothing, sleeps nowhere
 * and calls only what is here. userspace/lib/pure.c has the functions that only the kernel brings
 * along.
 */
#ifndef KNET_PURE_H
#define KNET_PURE_H

#ifdef __KERNEL__

#include <linux/inet.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/types.h>
#include <net/tcp_states.h>

#else

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <linux/types.h>
#include <netinet/tcp.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define fallthrough __attribute__((__fallthrough__))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

int in4_pton(const char *src, int srclen, u8 *dst, int delim, const char **end);
int in6_pton(const char *src, int srclen, u8 *dst, int delim, const char **end);

#endif /* __KERNEL__ */

#endif /* KNET_PURE_H */
