// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "address.h"
#include "line.h"

/* --- cutting --- */

static void cut_hold(struct drop_cutter *cutter, const char *data, size_t len)
{
	size_t room = sizeof(cutter->held) - cutter->len;

	if (len > room) {
		cutter->too_long = true;
		len = room;
	}
	memcpy(cutter->held + cutter->len, data, len);
	cutter->len += len;
}

/* Hands out what is held and begins anew. */
static void cut_held(struct drop_cutter *cutter, struct drop_text *line)
{
	line->s = cutter->held;
	line->len = cutter->len;
	line->too_long = cutter->too_long;
	cutter->len = 0;
	cutter->too_long = false;
}

/* A carriage return at the end does not count, also not as one byte too many. */
static void cut_return(struct drop_text *line)
{
	if (line->len && line->s[line->len - 1] == '\r' && !line->too_long)
		line->len--;
	if (line->len > DROP_LINE_MAX) {
		line->len = DROP_LINE_MAX;
		line->too_long = true;
	}
}

bool drop_cut(struct drop_cutter *cutter, const char **data, size_t *len, struct drop_text *line)
{
	const char *end = memchr(*data, '\n', *len);
	size_t taken = end ? (size_t)(end - *data) : *len;

	if (end && !cutter->len && taken <= sizeof(cutter->held)) {
		line->s = *data;
		line->len = taken;
		line->too_long = false;
	} else {
		cut_hold(cutter, *data, taken);
		if (end)
			cut_held(cutter, line);
	}
	*data += taken + !!end;
	*len -= taken + !!end;
	if (end)
		cut_return(line);
	return end;
}

bool drop_cut_last(struct drop_cutter *cutter, struct drop_text *line)
{
	if (!cutter->len)
		return false;
	cut_held(cutter, line);
	cut_return(line);
	return true;
}

/* --- reading --- */

/* A run of bytes, and what is left of it while it is read. */
struct span {
	const char *s;
	size_t len;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct span next_word(struct span *rest)
{
	struct span word;

	while (rest->len && is_blank(*rest->s)) {
		rest->s++;
		rest->len--;
	}
	word.s = rest->s;
	while (rest->len && !is_blank(*rest->s)) {
		rest->s++;
		rest->len--;
	}
	word.len = rest->s - word.s;
	return word;
}

/* Splits @whole at @at; the second part begins with the byte there. */
static struct span split_at(struct span *whole, const char *at)
{
	struct span second = { .s = at, .len = whole->s + whole->len - at };

	whole->len = at - whole->s;
	return second;
}

/* Digits only, no sign, no more of them than @max has. */
static bool read_number(struct span text, u32 max, u32 *value)
{
	size_t i;

	*value = 0;
	if (!text.len || text.len > 5)
		return false;
	for (i = 0; i < text.len; i++) {
		if (text.s[i] < '0' || text.s[i] > '9')
			return false;
		*value = *value * 10 + (text.s[i] - '0');
	}
	return *value <= max;
}

static bool is_star(struct span text)
{
	return text.len == 1 && *text.s == '*';
}

static bool is_mapped(const u8 addr[16])
{
	static const u8 mapped[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(addr, mapped, sizeof(mapped));
}

/* address_is_plain() of four numbers, by how many digits they take. */
static bool is_plain_ipv4(struct span text, const u8 octets[4])
{
	size_t i, len = 3;

	for (i = 0; i < 4; i++)
		len += 1 + (octets[i] > 9) + (octets[i] > 99);
	return text.len == len;
}

static const char *read_address(struct span text, struct drop_end *end)
{
	static const char zeros[] = "superfluous zeros in an address";
	const char *stop;

	if (is_star(text))
		return NULL;
	if (memchr(text.s, ':', text.len)) {
		if (!in6_pton(text.s, text.len, end->addr, '\0', &stop) ||
		    stop != text.s + text.len)
			return "not an IPv6 address";
		if (!address_is_plain(text.s, text.len))
			return zeros;
		end->family = is_mapped(end->addr) ? 4 : 6;
	} else {
		if (!in4_pton(text.s, text.len, end->addr + 12, '\0', &stop) ||
		    stop != text.s + text.len)
			return "not an IPv4 address";
		if (!is_plain_ipv4(text, end->addr + 12))
			return zeros;
		end->addr[10] = 0xff;
		end->addr[11] = 0xff;
		end->family = 4;
	}
	end->prefix = 128;
	return NULL;
}

static const char *read_prefix(struct span text, struct drop_end *end, bool colons)
{
	unsigned int bits = colons ? 128 : 32;
	u32 prefix;

	if (!end->family)
		return "a prefix length after *";
	if (!read_number(text, bits, &prefix))
		return "not a prefix length";
	prefix += 128 - bits;
	if (end->family == 4 && prefix < 96)
		return "not a prefix length of an IPv4-mapped address";
	end->prefix = prefix;
	return NULL;
}

static const char *read_ifname(struct span text, char ifname[DROP_IFNAME_MAX])
{
	if (!text.len || text.len >= DROP_IFNAME_MAX)
		return "not an interface name";
	if (memchr(text.s, '\0', text.len))
		return "not an interface name";
	if (*ifname && (strlen(ifname) != text.len || memcmp(ifname, text.s, text.len)))
		return "two interfaces";
	memcpy(ifname, text.s, text.len);
	ifname[text.len] = '\0';
	return NULL;
}

/* [%IFNAME][/PREFIX]; @text is empty or begins with one of them. */
static const char *read_suffix(struct span text, struct drop_end *end, bool colons,
			       char ifname[DROP_IFNAME_MAX])
{
	struct span prefix = {};
	const char *wrong = NULL;
	const char *slash = text.len ? memchr(text.s, '/', text.len) : NULL;

	if (slash)
		prefix = split_at(&text, slash);
	if (text.len) {
		text.s++;
		text.len--;
		wrong = read_ifname(text, ifname);
	}
	if (!wrong && prefix.len) {
		prefix.s++;
		prefix.len--;
		wrong = read_prefix(prefix, end, colons);
	}
	return wrong;
}

/* The first % or / in @text, which its suffix begins with; its end if there is none. */
static const char *suffix_of(struct span text)
{
	size_t i;

	for (i = 0; i < text.len; i++) {
		if (text.s[i] == '%' || text.s[i] == '/')
			break;
	}
	return text.s + i;
}

static const char *read_host(struct span host, struct drop_end *end, char ifname[DROP_IFNAME_MAX])
{
	struct span inner = host, outer = {}, suffix;
	const char *close, *wrong;
	bool colons;

	if (!host.len)
		return "no address";
	if (*host.s == '[') {
		close = memchr(host.s, ']', host.len);
		if (!close)
			return "no ] after [";
		inner.s++;
		inner.len = close - inner.s;
		outer.s = close + 1;
		outer.len = host.s + host.len - outer.s;
		if (outer.len && *outer.s != '%' && *outer.s != '/')
			return "something between ] and the port";
	}
	suffix = split_at(&inner, suffix_of(inner));
	colons = inner.len && memchr(inner.s, ':', inner.len);
	if (*host.s == '[' && !colons)
		return "not an IPv6 address";
	wrong = read_address(inner, end);
	if (!wrong)
		wrong = read_suffix(suffix, end, colons, ifname);
	if (!wrong)
		wrong = read_suffix(outer, end, colons, ifname);
	return wrong;
}

/* HOST:PORT, split at the last colon: netstat puts no brackets around IPv6 addresses. */
static const char *read_end(struct span word, struct drop_end *end, char ifname[DROP_IFNAME_MAX])
{
	struct span host = word, port;
	size_t at = word.len;
	u32 value = 0;

	while (at && word.s[at - 1] != ':')
		at--;
	if (!at)
		return "no port";
	port.s = word.s + at;
	port.len = word.len - at;
	host.len = at - 1;
	end->any_port = is_star(port);
	if (!end->any_port && !read_number(port, 65535, &value))
		return "not a port";
	end->port = value;
	return read_host(host, end, ifname);
}

#define STATE(name) (1 << TCP_##name)
#define CONNECTED                                                                    \
	(STATE(ESTABLISHED) | STATE(SYN_SENT) | STATE(SYN_RECV) | STATE(FIN_WAIT1) | \
	 STATE(FIN_WAIT2) | STATE(TIME_WAIT) | STATE(CLOSE_WAIT) | STATE(LAST_ACK) | \
	 STATE(CLOSING))

/* ss's and netstat's words for states and sets of them, without case, hyphens and underscores. */
static const struct {
	char word[13];
	u32 states;
} state_words[] = {
	{ "established", STATE(ESTABLISHED) },
	{ "estab", STATE(ESTABLISHED) },
	{ "synsent", STATE(SYN_SENT) },
	{ "synrecv", STATE(SYN_RECV) },
	{ "finwait1", STATE(FIN_WAIT1) },
	{ "finwait2", STATE(FIN_WAIT2) },
	{ "timewait", STATE(TIME_WAIT) },
	{ "close", STATE(CLOSE) },
	{ "closed", STATE(CLOSE) },
	{ "unconn", STATE(CLOSE) },
	{ "closewait", STATE(CLOSE_WAIT) },
	{ "lastack", STATE(LAST_ACK) },
	{ "listen", STATE(LISTEN) },
	{ "listening", STATE(LISTEN) },
	{ "closing", STATE(CLOSING) },
	{ "connected", CONNECTED },
	{ "synchronized", CONNECTED & ~STATE(SYN_SENT) },
	{ "bucket", STATE(SYN_RECV) | STATE(TIME_WAIT) },
};

#define STATE_TEXT_MAX 32 /* with all the hyphens and underscores that anybody writes */

static u32 read_state(struct span text)
{
	char word[sizeof(state_words[0].word)] = "";
	size_t i, n = 0;
	char c;

	if (text.len > STATE_TEXT_MAX)
		return 0;
	for (i = 0; i < text.len; i++) {
		c = text.s[i];
		if (c == '-' || c == '_')
			continue;
		if (n == sizeof(word) - 1)
			return 0;
		word[n++] = c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
	}
	for (i = 0; i < ARRAY_SIZE(state_words); i++) {
		if (n == strlen(state_words[i].word) && !memcmp(state_words[i].word, word, n))
			return state_words[i].states;
	}
	return 0;
}

static bool is_any(const struct drop_end *end)
{
	return !end->family && end->any_port;
}

/*
 * A listener on an IPv4-mapped address is a socket of IPv6, which ss and netstat list with IPv6's
 * unspecified address for the remote end it has not; it is compared as IPv4.
 */
static void map_unspecified(struct drop_end *end)
{
	static const u8 unspecified[16], zero[4];

	if (end->family == 6 && end->any_port && end->prefix == 128 &&
	    !memcmp(end->addr, unspecified, sizeof(unspecified))) {
		drop_map_address(end->addr, zero);
		end->family = 4;
	}
}

const char *drop_parse(const struct drop_text *line, struct drop_selector *sel)
{
	static const char listening[] = "listening";
	struct span rest = { .s = line->s, .len = line->len };
	struct span local, remote, state;
	const char *wrong;

	memset(sel, 0, sizeof(*sel));
	if (line->too_long)
		return "more than 256 bytes";
	local = next_word(&rest);
	if (!local.len)
		return "";
	remote = next_word(&rest);
	state = next_word(&rest);
	if (next_word(&rest).len)
		return "more than three words";
	if (!remote.len)
		return "no remote address";
	wrong = read_end(local, &sel->local, sel->ifname);
	if (!wrong)
		wrong = read_end(remote, &sel->remote, sel->ifname);
	if (wrong)
		return wrong;
	if (sel->local.family == 4)
		map_unspecified(&sel->remote);
	if (sel->local.family && sel->remote.family && sel->local.family != sel->remote.family)
		return "an IPv4 and an IPv6 address";
	sel->states = CONNECTED | STATE(LISTEN);
	/*
	 * ss lists a listener on all addresses as "*:22 *:*". Taken for a pattern, it would take
	 * every connection to that port down; whoever means them says "connected".
	 */
	if (is_any(&sel->remote))
		sel->states = STATE(LISTEN);
	if (state.len) {
		sel->states = read_state(state);
		/* Nothing but this very word may take a listener down. */
		sel->listeners = state.len == strlen(listening) &&
				 !memcmp(state.s, listening, state.len);
		if (!sel->states)
			return "not a state";
	}
	return NULL;
}

/* --- comparing --- */

bool drop_is_pair(const struct drop_selector *sel)
{
	return sel->local.prefix == 128 && sel->remote.prefix == 128 && !sel->local.any_port &&
	       !sel->remote.any_port && sel->remote.port;
}

static bool end_matches(const struct drop_end *end, u8 family, const u8 addr[16], u16 port)
{
	unsigned int bytes = end->prefix / 8, bits = end->prefix % 8;

	if (!end->any_port && end->port != port)
		return false;
	if (!end->family)
		return true;
	if (end->family != family || memcmp(end->addr, addr, bytes))
		return false;
	return !bits || !((end->addr[bytes] ^ addr[bytes]) >> (8 - bits));
}

bool drop_matches(const struct drop_selector *sel, const struct drop_tuple *tuple)
{
	return end_matches(&sel->local, tuple->family, tuple->local, tuple->local_port) &&
	       end_matches(&sel->remote, tuple->family, tuple->remote, tuple->remote_port);
}

/* --- showing --- */

const char *drop_state_name(unsigned int state)
{
	static const char *const names[DROP_STATES] = {
		[TCP_ESTABLISHED] = "established",
		[TCP_SYN_SENT] = "syn-sent",
		[TCP_SYN_RECV] = "syn-recv",
		[TCP_FIN_WAIT1] = "fin-wait-1",
		[TCP_FIN_WAIT2] = "fin-wait-2",
		[TCP_TIME_WAIT] = "time-wait",
		[TCP_CLOSE] = "closed",
		[TCP_CLOSE_WAIT] = "close-wait",
		[TCP_LAST_ACK] = "last-ack",
		[TCP_LISTEN] = "listening",
		[TCP_CLOSING] = "closing",
	};

	return state < DROP_STATES && names[state] ? names[state] : "unknown";
}

void drop_state_field(unsigned int state, char field[DROP_STATE_MAX])
{
	const char *name = drop_state_name(state);

	do {
		*field++ = *name == '-' ? '_' : *name;
	} while (*name++);
}

void drop_escape(const char *s, size_t len, char out[DROP_ESCAPED_MAX])
{
	size_t i;

	for (i = 0; i < len && i < DROP_LINE_MAX; i++) {
		if (s[i] >= ' ' && s[i] <= '~' && s[i] != '\\' && s[i] != '"')
			*out++ = s[i];
		else
			out += sprintf(out, "\\x%02x", (u8)s[i]);
	}
	*out = '\0';
}
