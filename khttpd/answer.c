// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * answer.c - composes answers (RFC 9110, 6.2 ff.)
 */
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/string.h>
#include <linux/time.h>

#include "answer.h"

static const char hello_text[] = "Hello World!";

static const struct {
	unsigned int status;
	const char *reason;
} reasons[] = {
	{ 200, "OK" },
	{ 400, "Bad Request" },
	{ 405, "Method Not Allowed" },
	{ 408, "Request Timeout" },
	{ 413, "Content Too Large" },
	{ 414, "URI Too Long" },
	{ 417, "Expectation Failed" },
	{ 431, "Request Header Fields Too Large" },
	{ 501, "Not Implemented" },
	{ 505, "HTTP Version Not Supported" },
};

static const char *reason_of(unsigned int status)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Error";
}

/* An IMF-fixdate (RFC 9110, 5.6.7). */
static void write_date(char *date, size_t size, time64_t second)
{
	static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
					  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	struct tm tm;

	time64_to_tm(second, 0, &tm);
	snprintf(date, size, "%s, %02d %s %04ld %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
		 months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void refresh(struct answers *answers)
{
	time64_t now = ktime_get_real_seconds();

	if (likely(answers->second == now))
		return;
	answers->second = now;
	write_date(answers->date, sizeof(answers->date), now);
	memset(answers->len, 0, sizeof(answers->len));
}

size_t answer_compose(struct answers *answers, char *buf, unsigned int status,
		      enum answer_connection connection, bool hello, bool body)
{
	static const char *const connections[] = {
		[ANSWER_PLAIN] = "",
		[ANSWER_KEEP] = "Connection: keep-alive\r\n",
		[ANSWER_CLOSE] = "Connection: close\r\n",
	};
	const char *reason = reason_of(status);
	bool allow = (status == 200 && !hello) || status == 405;
	char text[64] = "";
	size_t len;

	refresh(answers);
	if (hello)
		strscpy(text, hello_text, sizeof(text));
	else if (status != 200)
		snprintf(text, sizeof(text), "%u %s\n", status, reason);
	len = scnprintf(buf, ANSWER_MAX, "HTTP/1.1 %u %s\r\nServer: khttpd\r\nDate: %s\r\n%s%s",
			status, reason, answers->date, allow ? "Allow: GET, HEAD, OPTIONS\r\n" : "",
			*text ? "Content-Type: text/plain\r\n" : "");
	return len + scnprintf(buf + len, ANSWER_MAX - len, "Content-Length: %zu\r\n%s\r\n%s",
			       strlen(text), connections[connection], body ? text : "");
}

const char *answer_hello(struct answers *answers, enum answer_connection connection, size_t *len)
{
	char *text = answers->text[connection];

	refresh(answers);
	if (unlikely(!answers->len[connection]))
		answers->len[connection] =
			answer_compose(answers, text, 200, connection, true, true);
	*len = answers->len[connection];
	return text;
}
