/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * address.h - what the kernel's readers of IP addresses, in4_pton() and in6_pton(), leave to be
 * asked.
 */
#ifndef KNET_ADDRESS_H
#define KNET_ADDRESS_H

#include "pure.h"

/**
 * address_is_plain() - whether a reader of an address takes it for what others do
 * @text: an address that the kernel has read, IPv4 or IPv6, without a scope
 * @len: of it
 *
 * Return: false where the kernel takes a spelling that others refuse, or read as octal: "010" for
 * ten, and zeros without end in front of a group.
 */
static inline bool address_is_plain(const char *text, size_t len)
{
	char c, first = 0, before = 0;
	size_t i, run = 0;

	for (i = 0; i <= len; i++) {
		c = i < len ? text[i] : 0;
		if (c && c != ':' && c != '.') {
			if (!run++)
				first = c;
			continue;
		}
		if (run > 4 || (run > 1 && first == '0' && (c == '.' || before == '.')))
			return false;
		before = c;
		run = 0;
	}
	return true;
}

#endif /* KNET_ADDRESS_H */
