/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* cpustat.h - where the machine's CPU time went, from /proc/stat. */
#ifndef LIB_CPUSTAT_H
#define LIB_CPUSTAT_H

#include <stdio.h>

/**
 * struct cpustat - CPU time of the whole machine, seconds
 * @user: in user space (nice included)
 * @system: in the kernel, for a process
 * @softirq: in softirqs and interrupts
 * @idle: nowhere (iowait included)
 * @steal: taken by the host
 */
struct cpustat {
	double user;
	double system;
	double softirq;
	double idle;
	double steal;
};

struct cpustat cpustat_read(void);
struct cpustat cpustat_since(const struct cpustat *then);
void cpustat_json(const struct cpustat *s, FILE *to);

#endif
