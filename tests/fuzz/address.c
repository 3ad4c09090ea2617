// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * address - a libFuzzer target: what the C library reads as an address is plain, and plain is what has
 * no long group and no leading zero in a number of an IPv4 address, when that is looked for one number
 * after the other.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>

#include "address.h"

static bool looks_plain(const char *text)
{
	size_t len;

	for (;; text += len + 1) {
		bool in_ipv4;

		len = strcspn(text, ":.");
		in_ipv4 = text[len] == '.' || text[-1] == '.';
		if (len > 4 || (in_ipv4 && len > 1 && *text == '0'))
			return false;
		if (!text[len])
			return true;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Buffers of its own length, so that reading beyond it, or before it, is found out. */
	char *bare = malloc(size), *text = malloc(size + 2);
	uint8_t addr[16];
	bool plain;

	text[0] = ' ';
	memcpy(bare, data, size);
	memcpy(text + 1, data, size);
	text[size + 1] = 0;
	plain = address_is_plain(bare, size);
	if (strlen(text) == size + 1) {
		if (plain != looks_plain(text + 1))
			abort();
		if (!plain && (inet_pton(AF_INET, text + 1, addr) > 0 ||
			       inet_pton(AF_INET6, text + 1, addr) > 0))
			abort();
	}
	free(bare);
	free(text);
	return 0;
}
