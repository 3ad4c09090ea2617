// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * proc.c - /proc/net/drop_tcp_sock, one in each network namespace.
 *
 * An open file holds its namespace, as the kernel's own files there do: otherwise a write that
 * blocks on its own memory would hold up the removal of namespaces, which is one queue for all. It
 * does not hold the module: removing the file waits for reads and writes that run, and closes what
 * is open.
 *
 * Locks, outermost first:
 *	drop_file.mutex		the file's stream of lines: one write at a time
 *	drop_net.act		one line is carried out at a time in a namespace, or two of them
 *				could both count the same socket
 *	drop_net.lock		totals; readers hold only this and never wait for a line. What
 *				came of a line is added in one go, CHUNK bytes of lines at a time
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

#include "compat.h"
#include "drop.h"

#define FILE_NAME "drop_tcp_sock"
#define CHUNK 4096 /* bytes taken from the writer at a time */

/* Set before the module goes: namespaces made from then on need no file. */
static bool unloading;

/**
 * struct drop_net - a network namespace's part
 * @file: what is under /proc/net; NULL once it is removed
 * @act: one line is carried out at a time
 * @lock: guards @totals, @bad and @bad_len
 * @totals: since the module was loaded or the namespace made
 * @bad: the last malformed line, its first bytes
 * @bad_len: how many bytes of @bad
 * @dying: no further line is to be carried out; set once
 */
struct drop_net {
	struct proc_dir_entry *file;
	struct mutex act; /* one line at a time */
	spinlock_t lock; /* guards totals, bad, bad_len and each file's own */
	struct drop_totals totals;
	char bad[DROP_LINE_MAX];
	size_t bad_len;
	bool dying;
};

/**
 * struct drop_file - an open file
 * @net: the namespace, held
 * @dn: its part here
 * @writable: opened for writing too: reading shows @own
 * @mutex: guards @cutter, @lines and @chunk
 * @cutter: where the stream of lines stands
 * @lines: how many lines were taken, blank ones among them
 * @own: what came of this file's lines; guarded by @dn->lock
 * @chunk: what was taken from the writer
 */
struct drop_file {
	struct net *net;
	struct drop_net *dn;
	bool writable;
	struct mutex mutex; /* one write at a time */
	struct drop_cutter cutter;
	u64 lines;
	struct drop_totals own;
	char chunk[CHUNK];
};

static unsigned int drop_net_id __read_mostly;

static void totals_add(struct drop_totals *to, const struct drop_totals *from)
{
	unsigned int state;

	to->requested += from->requested;
	to->not_found += from->not_found;
	to->skipped_listener += from->skipped_listener;
	to->malformed += from->malformed;
	for (state = 0; state < DROP_STATES; state++)
		to->dropped[state] += from->dropped[state];
}

/* Adds what came of some lines to the totals, at once for those who read them; empties @sum. */
static void account(struct drop_file *df, struct drop_totals *sum)
{
	struct drop_net *dn = df->dn;

	spin_lock(&dn->lock);
	totals_add(&dn->totals, sum);
	totals_add(&df->own, sum);
	spin_unlock(&dn->lock);
	memset(sum, 0, sizeof(*sum));
}

static void refuse(struct drop_file *df, const struct drop_text *line, const char *wrong,
		   struct drop_totals *sum)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST);
	struct drop_net *dn = df->dn;
	char *text;

	sum->malformed++;
	account(df, sum);
	spin_lock(&dn->lock);
	memcpy(dn->bad, line->s, line->len);
	dn->bad_len = line->len;
	spin_unlock(&dn->lock);
	/* Anybody may own a namespace, write what he likes in it, and fill the machine's log. */
	if (df->net->user_ns != &init_user_ns || !__ratelimit(&limit))
		return;
	text = kmalloc(DROP_ESCAPED_MAX, GFP_KERNEL);
	if (text)
		drop_escape(line->s, line->len, text);
	pr_notice("line %llu is malformed, %s: \"%s\"%s\n", df->lines, wrong, text ?: "",
		  line->too_long ? "..." : "");
	kfree(text);
}

/* Return: 0, or a negative errno if the line was not carried out and no further one can be. */
static int carry_out(struct drop_file *df, const struct drop_text *line, struct drop_totals *sum)
{
	struct drop_net *dn = df->dn;
	struct drop_selector sel;
	const char *wrong;
	int err;

	df->lines++;
	wrong = drop_parse(line, &sel);
	if (wrong) {
		if (*wrong)
			refuse(df, line, wrong, sum);
		return 0;
	}
	err = mutex_lock_killable(&dn->act);
	if (err)
		return err;
	if (!READ_ONCE(dn->dying)) {
		sum->requested++;
		drop_sockets(df->net, &sel, sum, &dn->dying);
	}
	/* Set now, it may have cut a walk short: the line does not count as done. */
	if (READ_ONCE(dn->dying))
		err = -EIO;
	mutex_unlock(&dn->act);
	return err;
}

/*
 * Carries out the lines that end in df->chunk, which @len bytes were taken into. @err is set if
 * that ended early by an error. Return: how many of those bytes are done with.
 */
static size_t carry_out_chunk(struct drop_file *df, size_t len, int *err)
{
	const char *data = df->chunk;
	struct drop_totals sum = {};
	struct drop_text line;
	size_t left = len, before;

	for (before = left; left && drop_cut(&df->cutter, &data, &left, &line); before = left) {
		*err = carry_out(df, &line, &sum);
		if (*err) {
			left = before;
			break;
		}
		cond_resched();
		if (signal_pending(current))
			break;
	}
	account(df, &sum);
	return len - left;
}

/*
 * Whoever sent nothing but nonsense is told so; one bad line among good ones is only counted. What
 * has come of the next line is nonsense too then: the writer may give up, and a line cut short must
 * not be carried out when the file is closed.
 */
static bool is_nonsense(struct drop_file *df, u64 lines_before)
{
	if (df->lines == lines_before || df->own.requested || !df->own.malformed)
		return false;
	if (df->cutter.len)
		df->cutter.too_long = true;
	return true;
}

static ssize_t drop_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	struct drop_file *df = ((struct seq_file *)file->private_data)->private;
	size_t done = 0, n, taken;
	u64 lines;
	int err = 0;

	if (mutex_lock_interruptible(&df->mutex))
		return -ERESTARTSYS;
	lines = df->lines;
	while (done < len && !err) {
		n = min_t(size_t, len - done, CHUNK);
		if (READ_ONCE(df->dn->dying)) {
			err = -EIO;
		} else if (copy_from_user(df->chunk, from + done, n)) {
			err = -EFAULT;
		} else {
			taken = carry_out_chunk(df, n, &err);
			done += taken;
			if (taken < n || signal_pending(current))
				break;
		}
	}
	if (done == len && is_nonsense(df, lines))
		err = -EINVAL;
	mutex_unlock(&df->mutex);
	return done && err != -EINVAL ? done : err;
}

static void show_totals(struct seq_file *seq, const char *prefix, const struct drop_totals *totals)
{
	unsigned int state;
	char name[DROP_STATE_MAX];
	u64 sum = 0;

	for (state = 0; state < DROP_STATES; state++)
		sum += totals->dropped[state];
	seq_printf(seq, "%srequested %llu\n%sdropped %llu\n", prefix, totals->requested, prefix,
		   sum);
	for (state = TCP_ESTABLISHED; state < DROP_STATES; state++) {
		if (state == TCP_CLOSE) /* in no table, never found */
			continue;
		drop_state_field(state, name);
		seq_printf(seq, "%sdropped_%s %llu\n", prefix, name, totals->dropped[state]);
	}
	seq_printf(seq, "%snot_found %llu\n%sskipped_listener %llu\n%smalformed %llu\n", prefix,
		   totals->not_found, prefix, totals->skipped_listener, prefix, totals->malformed);
}

static int drop_show(struct seq_file *seq, void *v)
{
	struct drop_file *df = seq->private;
	struct drop_net *dn = df->dn;
	struct drop_totals totals, own;
	char *bad, *escaped;
	size_t bad_len;

	bad = kmalloc(DROP_LINE_MAX + DROP_ESCAPED_MAX, GFP_KERNEL);
	if (!bad)
		return -ENOMEM;
	spin_lock(&dn->lock);
	totals = dn->totals;
	own = df->own;
	bad_len = dn->bad_len;
	memcpy(bad, dn->bad, bad_len);
	spin_unlock(&dn->lock);

	escaped = bad + DROP_LINE_MAX;
	drop_escape(bad, bad_len, escaped);
	seq_puts(seq, "version 1\n");
	show_totals(seq, "", &totals);
	seq_printf(seq, "last_malformed \"%s\"\n", escaped);
	if (df->writable)
		show_totals(seq, "file_", &own);
	kfree(bad);
	return 0;
}

static int drop_open(struct inode *inode, struct file *file)
{
	struct net *net = pde_data(inode);
	struct drop_file *df;
	int err;

	/* The opener counts: a write may come from a program that was handed the descriptor. */
	if (!file_ns_capable(file, net->user_ns, CAP_NET_ADMIN))
		return -EPERM;
	df = kzalloc(sizeof(*df), GFP_KERNEL_ACCOUNT);
	if (!df)
		return -ENOMEM;
	df->net = maybe_get_net(net);
	if (!df->net) {
		kfree(df);
		return -ENXIO;
	}
	df->dn = net_generic(net, drop_net_id);
	df->writable = file->f_mode & FMODE_WRITE;
	mutex_init(&df->mutex);
	err = single_open(file, drop_show, df);
	if (err) {
		put_net(net);
		kfree(df);
	}
	return err;
}

/*
 * To carry out a line may take as long as a socket's owner likes, and who closes a file last need
 * not have asked for that: a program of another user that was sent it, or the kernel's own thread
 * that closes what nobody can reach any more, or what was in use by an interrupt, for the whole
 * machine.
 */
static bool may_wait(const struct file *file)
{
	return !(current->flags & PF_KTHREAD) && uid_eq(current_euid(), file->f_cred->euid);
}

static int drop_release(struct inode *inode, struct file *file)
{
	struct drop_file *df = ((struct seq_file *)file->private_data)->private;
	struct drop_totals sum = {};
	struct net *net = df->net;
	struct drop_text line;

	/* A last line without a newline. Nobody can be told what came of it; the totals can. */
	if (!READ_ONCE(df->dn->dying) && drop_cut_last(&df->cutter, &line)) {
		if (may_wait(file))
			carry_out(df, &line, &sum);
		else
			refuse(df, &line, "somebody else closed its file", &sum);
		account(df, &sum);
	}
	kfree(df);
	put_net(net);
	return single_release(inode, file);
}

static const struct proc_ops drop_proc_ops = {
	.proc_open = drop_open,
	.proc_read = seq_read,
	.proc_write = drop_write,
	.proc_lseek = seq_lseek,
	.proc_release = drop_release,
};

static int __net_init drop_net_init(struct net *net)
{
	struct drop_net *dn = net_generic(net, drop_net_id);

	mutex_init(&dn->act);
	spin_lock_init(&dn->lock);
	if (READ_ONCE(unloading))
		return 0;
	dn->file = proc_create_data(FILE_NAME, 0600, net->proc_net, &drop_proc_ops, net);
	return dn->file ? 0 : -ENOMEM;
}

/* Lets writers come to an end, so that the removal that follows need not wait for long. */
static void __net_exit drop_net_pre_exit(struct net *net)
{
	struct drop_net *dn = net_generic(net, drop_net_id);

	WRITE_ONCE(dn->dying, true);
}

static void __net_exit drop_net_exit(struct net *net)
{
	struct drop_net *dn = net_generic(net, drop_net_id);

	proc_remove(dn->file);
}

static struct pernet_operations drop_net_ops = {
	.init = drop_net_init,
	.pre_exit = drop_net_pre_exit,
	.exit = drop_net_exit,
	.id = &drop_net_id,
	.size = sizeof(struct drop_net),
};

int drop_proc_register(void)
{
	return register_pernet_subsys(&drop_net_ops);
}

/* A namespace that still has the file, held; NULL if none has. */
static struct net *next_with_file(void)
{
	struct net *net, *found = NULL;
	struct drop_net *dn;

	down_read(&net_rwsem);
	for_each_net(net) {
		dn = net_generic(net, drop_net_id);
		if (READ_ONCE(dn->file))
			found = maybe_get_net(net);
		if (found)
			break;
	}
	up_read(&net_rwsem);
	return found;
}

/*
 * The files go first, and namespaces behind them: while unregister_pernet_subsys() waits for a
 * writer, whose own memory may keep it for long, nobody on the machine can make a namespace. One
 * that is going meanwhile has no open file, as those hold it, and its file goes with it.
 */
void drop_proc_unregister(void)
{
	struct drop_net *dn;
	struct net *net;

	WRITE_ONCE(unloading, true);
	while ((net = next_with_file())) {
		dn = net_generic(net, drop_net_id);
		WRITE_ONCE(dn->dying, true);
		proc_remove(dn->file);
		WRITE_ONCE(dn->file, NULL);
		put_net(net);
	}
	unregister_pernet_subsys(&drop_net_ops);
}
