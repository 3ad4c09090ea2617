/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * decimal.h - numbers as decimal text, for where so many are written that vsnprintf() is too slow.
 */
#ifndef KNET_DECIMAL_H
#define KNET_DECIMAL_H

#include "pure.h"

#define DECIMAL_MAX 20 /* characters that decimal_put() writes at most */

/* 00 to 99. */
static const char decimal_pairs[] = {
	"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
};

/* Two digits at a time, from the last to the first: @end is where they end. */
static inline char *decimal_backwards(char *end, u32 value)
{
	while (value >= 100) {
		end -= 2;
		memcpy(end, &decimal_pairs[value % 100 * 2], 2);
		value /= 100;
	}
	if (value < 10) {
		*--end = '0' + value;
		return end;
	}
	end -= 2;
	memcpy(end, &decimal_pairs[value * 2], 2);
	return end;
}

static inline unsigned int decimal_length(u32 value)
{
	if (value < 100)
		return value < 10 ? 1 : 2;
	if (value < 10000)
		return value < 1000 ? 3 : 4;
	if (value < 1000000)
		return value < 100000 ? 5 : 6;
	if (value < 100000000)
		return value < 10000000 ? 7 : 8;
	return value < 1000000000 ? 9 : 10;
}

/**
 * decimal_put_padded() - write a number with leading zeros
 * @out: where; room for @width characters
 * @value: less than ten to the power of @width
 * @width: digits
 *
 * Return: where the text ends. No NUL is put there.
 */
static inline char *decimal_put_padded(char *out, u32 value, unsigned int width)
{
	char *begin = decimal_backwards(out + width, value);

	while (begin > out)
		*--begin = '0';
	return out + width;
}

/**
 * decimal_put() - write a number
 * @out: where; room for DECIMAL_MAX characters
 * @value: any
 *
 * Return: where the text ends. No NUL is put there.
 */
static inline char *decimal_put(char *out, u64 value)
{
	const u32 chunk = 1000000000; /* nine digits fit into 32 bits */
	u32 low;

	if (value > 0xffffffff) {
#ifdef __KERNEL__
		low = do_div(value, chunk);
#else
		low = value % chunk;
		value /= chunk;
#endif
		out = decimal_put(out, value); /* twice at most */
		return decimal_put_padded(out, low, 9);
	}
	low = value;
	out += decimal_length(low);
	decimal_backwards(out, low);
	return out;
}

#endif /* KNET_DECIMAL_H */
