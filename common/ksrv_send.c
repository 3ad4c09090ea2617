// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_send.c - answers: copies into a page of the CPU's or the connection's, and input that goes
 * back as the pages that it came in. All of it in the pump's context, as ksrv_pump.c has it.
 */
#include <linux/tcp.h>
#include <net/tcp.h>

#include "ksrv_impl.h"

#define KSRV_FRAG_MIN 32 /* bytes; with less left of a page core TCP takes another one */

#ifdef CONFIG_HIGHMEM
#error "input is read in place: a kernel with highmem is not supported"
#endif

/**
 * ksrv_wait_for_room() - take no more input until there is room to answer it
 * @conn: the connection; the pump's lock is held
 *
 * A send fell short. Usually the send queue is full, and the ACK that empties it calls
 * write_space. With room in the queue, and nothing of it on the way, memory is short and no ACK
 * will come: try again later. What is queued then waits for the rest of its segment.
 */
void ksrv_wait_for_room(struct ksrv_conn *conn)
{
	struct sock *sk = conn->sock->sk;

	conn->blocked = true;
	set_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	if (!tcp_sk(sk)->packets_out && sk_stream_memory_free(sk)) {
		conn->retry = min_t(unsigned long,
				    max_t(unsigned long, 2 * conn->retry, KSRV_RETRY_MIN),
				    KSRV_RETRY_MAX);
		ksrv_queue_later(conn, conn->retry);
	}
}

/* Accounts for a send of @len bytes that returned @sent. Return: what was taken, or an errno. */
static int account(struct ksrv_conn *conn, int sent, size_t len)
{
	if (sent < 0) {
		if (sent != -EAGAIN && sent != -ENOMEM && sent != -ENOBUFS)
			return sent;
		sent = 0;
	}
	ksrv_count(conn->srv, KSRV_BYTES_OUT, sent);
	if (unlikely(sent < len))
		ksrv_wait_for_room(conn);
	else
		conn->retry = 0;
	return sent;
}

/**
 * ksrv_drop_page() - give back the page that a connection's answers were copied into
 * @sk: the socket; the pump's lock is held
 */
void ksrv_drop_page(struct sock *sk)
{
	put_page(sk->sk_frag.page);
	sk->sk_frag.page = NULL;
}

/* A single page: a peer who does not acknowledge the few bytes of an answer pins all of it. */
static bool new_page(struct page_frag *frag)
{
	if (frag->page)
		put_page(frag->page);
	frag->page = alloc_page(KSRV_GFP | __GFP_NOWARN);
	frag->offset = 0;
	frag->size = PAGE_SIZE;
	return frag->page;
}

/*
 * Before @len bytes are copied into @frag: sees to it that few of them get another page, where what
 * is left of this one will not do, before core TCP takes eight in one piece. Of the CPU's page, not
 * @own, what is left over is for others; but a connection's own are filled, or their bytes would
 * pin many times as many: little of a single one is left over, and nothing of what core TCP took.
 * Return: false if there is no memory.
 */
static bool provide_page(struct page_frag *frag, size_t len, bool own)
{
	bool single = frag->size == PAGE_SIZE;

	/* Core TCP may cut them anywhere, and takes another page where less than that is left. */
	len += KSRV_FRAG_MIN - 1;
	if (unlikely(len > (own ? PAGE_SIZE / 4 : PAGE_SIZE)))
		return true;
	if (unlikely(!frag->page || !(single || own)))
		return new_page(frag);
	if (unlikely(page_ref_count(frag->page) == 1))
		frag->offset = 0;
	if (likely(frag->offset + (single ? len : KSRV_FRAG_MIN) <= frag->size))
		return true;
	return new_page(frag);
}

/*
 * Whether an answer may be copied into this CPU's page. Every page that has some of a connection's
 * bytes is pinned by them, and the send queue's limit counts bytes: as many pages as there are
 * answers, if other connections use up the CPU's in between. So a connection whose bytes are all
 * acknowledged may; as long as some are not, only while the page is the one that it began with,
 * and beyond that what it sends goes into pages of its own, one after the other.
 */
static bool may_borrow(struct ksrv_conn *conn, struct sock *sk, const struct page_frag *frag)
{
	if (unlikely(tcp_sk(sk)->snd_una != tcp_sk(sk)->write_seq))
		return frag->page == conn->borrowed && !sk->sk_frag.page;
	if (unlikely(sk->sk_frag.page))
		ksrv_drop_page(sk);
	conn->borrowed = NULL; /* it begins anew */
	return true;
}

/* Sends a copy of @n pieces of @len bytes in all. Pump context. */
static int send_pieces(struct ksrv_conn *conn, struct kvec *piece, size_t n, size_t len, bool more)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0) };
	struct sock *sk = conn->sock->sk;
	struct page_frag *frag = &this_cpu_ptr(conn->srv->cpu)->frag;
	bool borrow;
	int sent;

	lockdep_assert_held(&sk->sk_lock.slock);
	if (conn->blocked)
		return 0;
	iov_iter_kvec(&msg.msg_iter, WRITE, piece, n, len);
	borrow = may_borrow(conn, sk, frag);
	if (likely(borrow))
		swap(sk->sk_frag, *frag);
	if (unlikely(!provide_page(&sk->sk_frag, len, !borrow) || ksrv_hook_send_fails(sk)))
		sent = -EAGAIN;
	else
		sent = tcp_sendmsg_locked(sk, &msg, len);
	if (likely(borrow)) {
		swap(sk->sk_frag, *frag);
		if (!conn->borrowed)
			conn->borrowed = frag->page;
	}
	return account(conn, sent, len);
}

/* Sends the pages themselves. Pump context. */
static int send_pages(struct ksrv_conn *conn, struct bio_vec *pages, size_t n, size_t len,
		      bool more)
{
	struct sock *sk = conn->sock->sk;
	int sent;

	lockdep_assert_held(&sk->sk_lock.slock);
	if (conn->blocked)
		return 0;
	if (unlikely(ksrv_hook_send_fails(sk)))
		sent = -EAGAIN;
	else
		sent = compat_tcp_send_pages(sk, pages, n, len, more);
	if (sent > 0)
		ksrv_hook_shared(sent);
	return account(conn, sent, len);
}

int ksrv_send(struct ksrv_conn *conn, const void *data, size_t len, bool more)
{
	struct kvec piece = { .iov_base = (void *)data, .iov_len = len };
	int sent = send_pieces(conn, &piece, 1, len, more);

	if (likely(sent > 0))
		conn->answered += sent;
	return sent;
}

/**
 * struct piece - bytes of a buffer that lie together
 * @data: where, or NULL where the kernel cannot read them, as they lie in a device's memory
 * @len: how many
 * @page: the page of the buffer's own fragment that they are; NULL for others
 * @at: where in it
 */
struct piece {
	const void *data;
	size_t len;
	struct page *page;
	unsigned int at;
};

/*
 * The bytes of @skb from @off on that lie in one piece. Reassembly of fragments within fragments
 * (a tunnel's) builds lists within lists; they nest as deep as the tunnels do. A peer can have
 * thousands of them in a segment, so they are not gone through anew for each piece: @place, of
 * @levels, says where the last one was.
 */
static struct piece skb_piece(const struct sk_buff *skb, unsigned int off, struct ksrv_place *place,
			      unsigned int levels)
{
	unsigned int start = skb_headlen(skb), size;
	struct piece piece = { .len = 0 };
	const struct sk_buff *part;
	const skb_frag_t *frag;
	int i;

	if (ksrv_hook_unreadable())
		return piece;
	if (off < start) {
		piece.len = start - off;
		piece.data = skb->data + off;
		return piece;
	}
	for (i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		frag = &skb_shinfo(skb)->frags[i];
		size = skb_frag_size(frag);
		if (off - start < size) {
			piece.page = skb_frag_page(frag);
			if (!piece.page)
				return piece;
			piece.at = skb_frag_off(frag) + off - start;
			piece.len = size - (off - start);
			piece.data = (const u8 *)skb_frag_address(frag) + off - start;
			return piece;
		}
		start += size;
	}
	part = skb_shinfo(skb)->frag_list;
	if (levels && place->part && place->start <= off) {
		part = place->part;
		start = place->start;
	}
	for (; part; part = part->next) {
		if (off - start < part->len)
			break;
		start += part->len;
	}
	if (!part)
		return piece;
	if (levels && place->part != part) {
		*place = (struct ksrv_place){ .part = part, .start = start };
		if (levels > 1)
			place[1].part = NULL;
	}
	piece = skb_piece(part, off - start, levels ? place + 1 : NULL, levels ? levels - 1 : 0);
	piece.page = NULL;
	return piece;
}

size_t ksrv_input_len(const struct ksrv_input *in)
{
	return in->len;
}

const void *ksrv_input_peek(struct ksrv_input *in, size_t *len)
{
	struct piece piece;

	if (!in->len)
		return NULL;
	piece = skb_piece(in->skb, in->off, in->place, KSRV_PLACES);
	*len = min(piece.len, in->len);
	return piece.data;
}

void ksrv_input_skip(struct ksrv_input *in, size_t len)
{
	in->off += len;
	in->len -= len;
}

/*
 * Whether a piece is sent as the page that it is, not copied. That pins the page until the peer
 * has acknowledged it, and all of a compound page with it, where the send queue's limit counts
 * the bytes sent: only what fills half of what it pins is worth that. On a route that cannot
 * gather (IPsec over a device that cannot) core TCP would copy, into memory that the socket
 * keeps. And a client on this machine may send pages that are a file's or its own (sendfile(),
 * vmsplice()), and, once all has been read and answered, write to them: those have a mapping.
 */
static bool worth_sharing(const struct sock *sk, const struct piece *piece)
{
	return piece->len >= KSRV_SHARE_MIN && piece->page && (sk->sk_route_caps & NETIF_F_SG) &&
	       sendpage_ok(piece->page) && !compound_head(piece->page)->mapping &&
	       2 * piece->len >= page_size(compound_head(piece->page));
}

/*
 * Sends a run of input: pieces that are all shared, or all copied. At most @len bytes; @run is
 * set to how many there were to send.
 */
static int send_run(struct ksrv_conn *conn, struct ksrv_input *in, size_t off, size_t len,
		    size_t *run)
{
	union {
		struct bio_vec page[MAX_SKB_FRAGS + 1];
		struct kvec copy[MAX_SKB_FRAGS + 1];
	} vec;
	const struct sock *sk = conn->sock->sk;
	struct piece piece;
	bool shared = false, more;
	unsigned int n = 0;

	*run = 0;
	while (*run < len && n < ARRAY_SIZE(vec.copy)) {
		piece = skb_piece(in->skb, off + *run, in->place, KSRV_PLACES);
		if (unlikely(!piece.data))
			return -EFAULT;
		piece.len = min(piece.len, len - *run);
		if (!n)
			shared = worth_sharing(sk, &piece);
		else if (worth_sharing(sk, &piece) != shared)
			break;
		if (shared)
			vec.page[n++] = (struct bio_vec){ .bv_page = piece.page,
							  .bv_offset = piece.at,
							  .bv_len = piece.len };
		else
			vec.copy[n++] = (struct kvec){ .iov_base = (void *)piece.data,
						       .iov_len = piece.len };
		*run += piece.len;
	}
	/* If there is no memory for what follows, only an ACK pushes what is held back for it. */
	more = *run < len && tcp_sk(sk)->packets_out;
	return shared ? send_pages(conn, vec.page, n, *run, more)
		      : send_pieces(conn, vec.copy, n, *run, more);
}

/* Input of many pieces, or large ones. Apart, as the kernel zeroes such arrays at every call. */
static noinline int send_runs(struct ksrv_conn *conn, struct ksrv_input *in, size_t len)
{
	size_t total = 0, run;
	int sent;

	do {
		sent = send_run(conn, in, in->off + total, len - total, &run);
		if (sent < 0)
			return total ?: sent; /* an error is there at the next try too */
		total += sent;
	} while (total < len && sent == run);
	return total;
}

int ksrv_send_input(struct ksrv_conn *conn, struct ksrv_input *in, size_t len)
{
	struct kvec piece;
	int sent;

	len = min(len, in->len);
	piece.iov_base = (void *)ksrv_input_peek(in, &piece.iov_len);
	if (unlikely(!piece.iov_base))
		return -EFAULT;
	if (likely(piece.iov_len >= len && len < KSRV_SHARE_MIN)) {
		piece.iov_len = len;
		sent = send_pieces(conn, &piece, 1, len, false);
	} else {
		sent = send_runs(conn, in, len);
	}
	if (sent > 0)
		ksrv_input_skip(in, sent);
	return sent;
}
