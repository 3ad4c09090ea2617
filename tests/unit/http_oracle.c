// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_oracle - what Debian's libhttp-parser makes of the streams that http_requests takes, in the
 * same format. It stops at a request after which the connection cannot go on: one that is to be
 * the last, a CONNECT or an upgrade.
 */
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>

static int on_complete(http_parser *parser)
{
	http_parser_pause(parser, 1);
	return 0;
}

int main(void)
{
	http_parser_settings settings;
	http_parser parser;
	size_t len, at;
	char *bytes;

	http_parser_settings_init(&settings);
	settings.on_message_complete = on_complete;
	while (scanf("%zu", &len) == 1 && getchar() == '\n') {
		bytes = malloc(len + 1);
		if (fread(bytes, 1, len, stdin) != len)
			return 2;
		http_parser_init(&parser, HTTP_REQUEST);
		at = 0;
		while (at < len) {
			at += http_parser_execute(&parser, &settings, bytes + at, len - at);
			if (HTTP_PARSER_ERRNO(&parser) == HPE_PAUSED) {
				printf("%s/%u/%s@%zu ", http_method_str(parser.method),
				       parser.http_minor,
				       http_should_keep_alive(&parser) ? "keep" : "close", at);
				if (parser.upgrade || !http_should_keep_alive(&parser))
					break;
				http_parser_pause(&parser, 0);
			} else if (HTTP_PARSER_ERRNO(&parser)) {
				printf("!%s@%zu", http_errno_name(HTTP_PARSER_ERRNO(&parser)), at);
				break;
			}
		}
		putchar('\n');
		free(bytes);
	}
	return 0;
}
