// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * pure.c - the kernel's functions that common/pure.h promises, on the C library's. Only the whole
 * text counts: callers give no delimiter and want @end at the text's end.
 */
#include "pure.h"

#include <arpa/inet.h>

static int whole_pton(int family, const char *src, int srclen, u8 *dst, const char **end)
{
	char text[INET6_ADDRSTRLEN + 1];

	*end = src;
	if (srclen < 0 || (size_t)srclen >= sizeof(text) || memchr(src, '\0', srclen))
		return 0;
	memcpy(text, src, srclen);
	text[srclen] = '\0';
	if (inet_pton(family, text, dst) != 1)
		return 0;
	*end = src + srclen;
	return 1;
}

int in4_pton(const char *src, int srclen, u8 *dst, int delim, const char **end)
{
	(void)delim;
	return whole_pton(AF_INET, src, srclen, dst, end);
}

int in6_pton(const char *src, int srclen, u8 *dst, int delim, const char **end)
{
	(void)delim;
	return whole_pton(AF_INET6, src, srclen, dst, end);
}
