// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* decimal - writes each number of standard input as decimal.h does, bare and to nine digits. */
#include <stdio.h>
#include <stdlib.h>

#include "decimal.h"

int main(void)
{
	unsigned long long value;

	while (scanf("%llu", &value) == 1) {
		/* Buffers of the size that is promised to do, so that ASan sees more being written. */
		char *text = malloc(DECIMAL_MAX), *padded = malloc(9);

		printf("%.*s ", (int)(decimal_put(text, value) - text), text);
		printf("%.*s\n", (int)(decimal_put_padded(padded, value % 1000000000, 9) - padded),
		       padded);
		free(text);
		free(padded);
	}
	return 0;
}
