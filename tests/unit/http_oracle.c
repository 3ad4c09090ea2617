// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_oracle - what llhttp, the parser of Node.js, makes of the streams that http_requests takes, in the same
 * format, none of its leniencies asked for. It stops at a request after which the connection cannot go on: one
 * that is to be the last, a CONNECT or an upgrade.
 */
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>

static int on_complete(llhttp_t *parser)
{
	(void)parser;
	return HPE_PAUSED;
}

int main(void)
{
	llhttp_settings_t settings;
	llhttp_t parser;
	size_t len, at;
	char *bytes;

	llhttp_settings_init(&settings);
	settings.on_message_complete = on_complete;
	while (scanf("%zu", &len) == 1 && getchar() == '\n') {
		bytes = malloc(len + 1);
		if (fread(bytes, 1, len, stdin) != len)
			return 2;
		llhttp_init(&parser, HTTP_REQUEST, &settings);
		for (at = 0; at < len;) {
			llhttp_errno_t error = llhttp_execute(&parser, bytes + at, len - at);
			int keep;

			if (error == HPE_OK)
				break;
			at = llhttp_get_error_pos(&parser) - bytes;
			if (error != HPE_PAUSED) {
				printf("!%s@%zu", llhttp_errno_name(error), at);
				break;
			}
			keep = llhttp_should_keep_alive(&parser);
			printf("%s/%u/%s@%zu ", llhttp_method_name(parser.method),
			       parser.http_minor, keep ? "keep" : "close", at);
			if (parser.upgrade || !keep)
				break;
			llhttp_resume(&parser);
		}
		putchar('\n');
		free(bytes);
	}
	return 0;
}
