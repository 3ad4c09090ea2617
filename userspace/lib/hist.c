// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "hist.h"

#include <inttypes.h>
#include <stddef.h>

static const struct {
	const char *name;
	double percent;
} figures[] = {
	{ "min", 0 },  { "p50", 50 },	  { "p90", 90 },
	{ "p99", 99 }, { "p99.9", 99.9 }, { "max", 100 },
};

#define N_FIGURES (sizeof(figures) / sizeof(figures[0]))

/* Values below HIST_SUB have a bucket each; above, every power of two has HIST_SUB of them. */
static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	if (value < HIST_SUB)
		return value;
	shift = 63 - __builtin_clzll(value) - HIST_SUB_BITS;
	return (shift + 1) * HIST_SUB + ((value >> shift) - HIST_SUB);
}

/* The largest value of a bucket. */
static uint64_t bucket_top(unsigned int bucket)
{
	unsigned int shift;

	if (bucket < HIST_SUB)
		return bucket;
	shift = bucket / HIST_SUB - 1;
	return ((uint64_t)(HIST_SUB + bucket % HIST_SUB + 1) << shift) - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
	if (!h->count || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->count++;
	h->bucket[bucket_of(value)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	unsigned int i;

	if (!from->count)
		return;
	if (!into->count || from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
	into->count += from->count;
	for (i = 0; i < HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

uint64_t hist_percentile(const struct hist *h, double percent)
{
	double share = h->count * percent / 100.0 * (1 - 1e-12); /* which may be a bit too large */
	uint64_t rank = share, seen = 0, top;
	unsigned int i;

	if (percent <= 0)
		return h->min;
	rank += rank < share; /* so many values, or more, do not exceed it */
	for (i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && seen >= rank) {
			top = bucket_top(i);
			return top > h->max ? h->max : top;
		}
	}
	return h->max;
}

void hist_print(const struct hist *h, const char *name, FILE *to)
{
	size_t i;

	fprintf(to, "%-10s", name);
	if (!h->count) {
		fprintf(to, " not measured\n");
		return;
	}
	for (i = 0; i < N_FIGURES; i++)
		fprintf(to, " %s %.1f", figures[i].name,
			hist_percentile(h, figures[i].percent) / 1000.0);
	fprintf(to, " us\n");
}

void hist_json(const struct hist *h, FILE *to)
{
	size_t i;

	if (!h->count) {
		fputs("null", to);
		return;
	}
	fprintf(to, "{\"count\": %" PRIu64, h->count);
	for (i = 0; i < N_FIGURES; i++)
		fprintf(to, ", \"%s\": %" PRIu64, figures[i].name,
			hist_percentile(h, figures[i].percent));
	fputc('}', to);
}

void hist_csv_header(const char *prefix, FILE *to)
{
	size_t i;

	for (i = 0; i < N_FIGURES; i++)
		fprintf(to, ",%s_%s_ns", prefix, figures[i].name);
}

void hist_csv(const struct hist *h, FILE *to)
{
	size_t i;

	for (i = 0; i < N_FIGURES; i++) {
		fputc(',', to);
		if (h->count)
			fprintf(to, "%" PRIu64, hist_percentile(h, figures[i].percent));
	}
}

void hist_dump(const struct hist *h, FILE *to)
{
	uint64_t seen = 0;
	unsigned int i;

	fprintf(to, "latency_ns,count,share\n");
	for (i = 0; i < HIST_BUCKETS; i++) {
		if (!h->bucket[i])
			continue;
		seen += h->bucket[i];
		fprintf(to, "%" PRIu64 ",%" PRIu64 ",%.9f\n", bucket_top(i), h->bucket[i],
			(double)seen / h->count);
	}
}
