// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "cpustat.h"

#include <unistd.h>

struct cpustat cpustat_read(void)
{
	unsigned long long v[8] = { 0 };
	struct cpustat s = { 0 };
	double hz = sysconf(_SC_CLK_TCK);
	FILE *f = fopen("/proc/stat", "r");

	if (!f)
		return s;
	if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
		   &v[4], &v[5], &v[6], &v[7]) == 8) {
		s.user = (v[0] + v[1]) / hz;
		s.system = v[2] / hz;
		s.idle = (v[3] + v[4]) / hz;
		s.softirq = (v[5] + v[6]) / hz;
		s.steal = v[7] / hz;
	}
	fclose(f);
	return s;
}

struct cpustat cpustat_since(const struct cpustat *then)
{
	struct cpustat s = cpustat_read();

	s.user -= then->user;
	s.system -= then->system;
	s.softirq -= then->softirq;
	s.idle -= then->idle;
	s.steal -= then->steal;
	return s;
}

void cpustat_json(const struct cpustat *s, FILE *to)
{
	fprintf(to,
		"{\"user\": %.2f, \"system\": %.2f, \"softirq\": %.2f, \"idle\": %.2f, \"steal\": %.2f}",
		s->user, s->system, s->softirq, s->idle, s->steal);
}
