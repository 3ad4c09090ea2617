/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * hist.h - a histogram of durations in nanoseconds, exact to 1/64 of a value, of fixed size. Each
 * thread fills one of its own; they are merged at the end.
 */
#ifndef LIB_HIST_H
#define LIB_HIST_H

#include <stdint.h>
#include <stdio.h>

#define HIST_SUB_BITS 6
#define HIST_SUB (1u << HIST_SUB_BITS)
#define HIST_BUCKETS ((64 - HIST_SUB_BITS + 1) * HIST_SUB)

/**
 * struct hist - a histogram; all zero is an empty one
 * @count: values added
 * @min: the least, exactly
 * @max: the largest, exactly
 * @bucket: values by size
 */
struct hist {
	uint64_t count;
	uint64_t min;
	uint64_t max;
	uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);

/**
 * hist_percentile() - the value that @percent of all values do not exceed
 * @h: the histogram
 * @percent: 0 to 100; 0 gives the least value and 100 the largest
 *
 * Return: nanoseconds, 0 for an empty histogram.
 */
uint64_t hist_percentile(const struct hist *h, double percent);

/* One line: "NAME  min .. p50 .. p90 .. p99 .. p99.9 .. max .. us". */
void hist_print(const struct hist *h, const char *name, FILE *to);
/* A JSON object with the same figures in nanoseconds. */
void hist_json(const struct hist *h, FILE *to);
/* The names of the figures, each as ",PREFIX_min_ns", and the figures; for a CSV table. */
void hist_csv_header(const char *prefix, FILE *to);
void hist_csv(const struct hist *h, FILE *to);
/* The whole distribution as CSV: upper bound in ns, values in the bucket, share up to it. */
void hist_dump(const struct hist *h, FILE *to);

#endif
