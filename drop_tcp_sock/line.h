/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * line.h - the lines that /proc/net/drop_tcp_sock takes: cut out of a stream, read, and compared
 * with a socket. Pure code, see common/pure.h.
 *
 *	LOCAL:PORT REMOTE:PORT [STATE]
 */
#ifndef DROP_LINE_H
#define DROP_LINE_H

#include "pure.h"

#define DROP_LINE_MAX 256 /* bytes of a line, neither CR nor LF at its end among them */
#define DROP_ESCAPED_MAX (4 * DROP_LINE_MAX + 1) /* the most that drop_escape() makes of it */
#define DROP_IFNAME_MAX 16 /* of an interface's name, its NUL among them; the kernel's IFNAMSIZ */
#define DROP_STATES 12 /* TCP's states are numbered from 1 to 11 */
#define DROP_STATE_MAX 16 /* of a state's name, its NUL among them */

/**
 * struct drop_cutter - cuts a stream into lines, wherever the stream is split
 * @held: what came of a line that has not ended yet
 * @len: how many bytes of @held are used
 * @too_long: the line has more bytes than @held, of which the first are kept
 */
struct drop_cutter {
	char held[DROP_LINE_MAX + 1]; /* and a carriage return */
	u16 len;
	bool too_long;
};

/**
 * struct drop_text - a line
 * @s: its bytes, without the newline or a carriage return before it; not NUL-terminated
 * @len: how many
 * @too_long: they are the first of more than DROP_LINE_MAX
 */
struct drop_text {
	const char *s;
	size_t len;
	bool too_long;
};

/**
 * drop_cut() - take the next line off a stream
 * @cutter: zeroed before the first byte of the stream
 * @data: where the stream goes on; moved past what was taken
 * @len: bytes at @data; lessened by what was taken
 * @line: the line, valid until the next call or until the bytes at the old @data go
 *
 * Return: whether there was a whole line. If not, all of @data was taken and is remembered.
 */
bool drop_cut(struct drop_cutter *cutter, const char **data, size_t *len, struct drop_text *line);

/**
 * drop_cut_last() - take what follows the last newline, once the stream has ended
 * @cutter: as for drop_cut()
 * @line: the line, valid until @cutter goes
 *
 * Return: whether there was anything.
 */
bool drop_cut_last(struct drop_cutter *cutter, struct drop_text *line);

/**
 * struct drop_end - which addresses and ports one end of a socket may have
 * @addr: IPv6 address, or IPv4 address as ::ffff:a.b.c.d
 * @prefix: how many leading bits of @addr count, 0 to 128; 96 and more for IPv4
 * @family: 4 or 6, 0 for both (then nothing of @addr counts)
 * @any_port: every port will do
 * @port: else this one, host byte order
 */
struct drop_end {
	u8 addr[16];
	u8 prefix;
	u8 family;
	bool any_port;
	u16 port;
};

/**
 * struct drop_selector - what a line asks for
 * @local: the end here
 * @remote: the peer's end
 * @states: bit mask by TCP state, 1 << TCP_ESTABLISHED and so on
 * @listeners: listeners among them are meant to be dropped; else they are only counted
 * @ifname: the interface that the socket must be bound to; empty for any and none
 */
struct drop_selector {
	struct drop_end local;
	struct drop_end remote;
	u32 states;
	bool listeners;
	char ifname[DROP_IFNAME_MAX];
};

/**
 * struct drop_tuple - a socket's addresses
 * @local: address as in &struct drop_end
 * @remote: likewise, the peer's; all zero (IPv4: the last 32 bits) for a listener
 * @local_port: host byte order
 * @remote_port: host byte order; 0 for a listener
 * @family: 4 or 6; an IPv6 socket with IPv4-mapped addresses is 4
 */
struct drop_tuple {
	u8 local[16];
	u8 remote[16];
	u16 local_port;
	u16 remote_port;
	u8 family;
};

/**
 * drop_map_address() - write an IPv4 address as &struct drop_tuple has it
 * @addr: ::ffff:a.b.c.d
 * @v4: its four bytes, network order
 */
static inline void drop_map_address(u8 addr[16], const void *v4)
{
	memset(addr, 0, 10);
	memset(addr + 10, 0xff, 2);
	memcpy(addr + 12, v4, 4);
}

/**
 * drop_parse() - read a line
 * @line: the line
 * @sel: what it asks for
 *
 * Return: NULL; "" for a blank line, which asks for nothing; else what is wrong with it, in a few
 * words.
 */
const char *drop_parse(const struct drop_text *line, struct drop_selector *sel);

/**
 * drop_is_pair() - whether only one connection can be meant
 * @sel: by drop_parse()
 */
bool drop_is_pair(const struct drop_selector *sel);

/**
 * drop_matches() - whether a socket's addresses and ports are among those asked for
 * @sel: by drop_parse()
 * @tuple: the socket's
 */
bool drop_matches(const struct drop_selector *sel, const struct drop_tuple *tuple);

/**
 * drop_state_name() - a state as it is spelt in lines and statistics
 * @state: TCP_ESTABLISHED to TCP_CLOSING
 *
 * Return: such as "time-wait".
 */
const char *drop_state_name(unsigned int state);

/**
 * drop_state_field() - a state as it is spelt in the names of counters
 * @state: TCP_ESTABLISHED to TCP_CLOSING
 * @field: such as "time_wait"
 */
void drop_state_field(unsigned int state, char field[DROP_STATE_MAX]);

/**
 * drop_escape() - make any bytes fit for a log line in double quotes
 * @s: the bytes
 * @len: how many, at most DROP_LINE_MAX
 * @out: printable ASCII and \xHH, NUL-terminated
 */
void drop_escape(const char *s, size_t len, char out[DROP_ESCAPED_MAX]);

#endif /* DROP_LINE_H */
