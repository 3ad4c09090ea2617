// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * proc.c - /proc/net/tcpprobe, in the initial network namespace: opened, hooks are armed; read,
 * records become lines; closed by the last, hooks are gone.
 *
 * There is one stream. Whoever reads takes records out of it, and a second reader shares it. A
 * waiting reader is woken by a timer that looks at the rings every TICK_MS: a handler wakes nobody.
 */
#include <linux/capability.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <net/net_namespace.h>

#include "compat.h"
#include "probe.h"

#define FILE_NAME "tcpprobe"
#define TICK_MS 10 /* how often a waiting reader looks */
#define READ_MAX SZ_1M /* bytes that a read takes at most */
#define PATIENCE_MS 100 /* after so long it takes what is there, be it less than readnum */
#define TEXT_SIZE (8 * PROBE_LINE_MAX)

struct probe_totals probe_totals;
DEFINE_MUTEX(probe_mutex); /* see probe.h */

/**
 * struct reader - an open file
 * @mutex: guards what follows: one read at a time
 * @off: first byte of @text not handed out yet
 * @len: bytes in @text
 * @text: whole lines
 */
struct reader {
	struct mutex mutex; /* one read at a time */
	size_t off;
	size_t len;
	char text[TEXT_SIZE];
};

DEFINE_MUTEX(probe_read_mutex); /* nests inside reader.mutex too */

/*
 * Who waits for records. Allocated, though there is one, since KASAN tells who uses freed memory
 * only of what was allocated: see let_go().
 */
static wait_queue_head_t *readers;
static unsigned int opens; /* under probe_mutex */
static u64 start; /* when the first of them opened; ns; set under probe_mutex before any read */
static bool dying; /* the module goes: nobody waits any longer */

static void tick(struct timer_list *timer);
static DEFINE_TIMER(ticker, tick);

static void tick(struct timer_list *timer)
{
	wake_up_interruptible(readers);
	mod_timer(&ticker, jiffies + msecs_to_jiffies(TICK_MS));
}

static int probe_begin(void)
{
	int err;

	err = probe_rings_start();
	if (err)
		return err;
	err = probe_flows_start();
	if (err)
		goto err_rings;
	start = ktime_get_mono_fast_ns();
	err = probe_hooks_arm();
	if (err)
		goto err_flows;
	mod_timer(&ticker, jiffies + msecs_to_jiffies(TICK_MS));
	return 0;

err_flows:
	probe_flows_stop();
err_rings:
	probe_rings_stop();
	return err;
}

static void probe_end(void)
{
	timer_delete_sync(&ticker);
	probe_hooks_disarm();
	probe_flows_stop();
	mutex_lock(&probe_read_mutex);
	atomic64_add(probe_rings_count(), &probe_totals.discarded);
	probe_rings_stop();
	mutex_unlock(&probe_read_mutex);
}

static int probe_open(struct inode *inode, struct file *file)
{
	struct reader *reader;
	int err = 0;

	if (!file_ns_capable(file, init_net.user_ns, CAP_NET_ADMIN))
		return -EPERM;
	reader = kzalloc(sizeof(*reader), GFP_KERNEL);
	if (!reader)
		return -ENOMEM;
	mutex_init(&reader->mutex);
	mutex_lock(&probe_mutex);
	if (opens)
		atomic64_inc(&probe_totals.multiple_reader);
	else
		err = probe_begin();
	if (!err)
		opens++;
	mutex_unlock(&probe_mutex);
	if (err) {
		kfree(reader);
		return err;
	}
	file->private_data = reader;
	return stream_open(inode, file);
}

/* The records whose lines were made for @reader, who did not read them to their end. */
static unsigned int unread(const struct reader *reader)
{
	const char *line = reader->text, *end = line + reader->len, *next;
	unsigned int n = 0;

	for (; line < end; line = next) {
		next = memchr(line, '\n', end - line) + 1; /* only whole lines are made */
		if (next > reader->text + reader->off && *line != '#')
			n++;
	}
	return n;
}

static int probe_release(struct inode *inode, struct file *file)
{
	unsigned int n = unread(file->private_data);

	atomic64_sub(n, &probe_totals.read);
	atomic64_add(n, &probe_totals.discarded);
	mutex_lock(&probe_mutex);
	if (!--opens)
		probe_end();
	mutex_unlock(&probe_mutex);
	kfree(file->private_data);
	return 0;
}

/* Makes lines of what there is, as many as there is room for. */
static void fill(struct reader *reader)
{
	struct probe_record rec;
	u64 lost;

	reader->off = 0;
	reader->len = 0;
	mutex_lock(&probe_read_mutex);
	while (reader->len + 2 * PROBE_LINE_MAX <= TEXT_SIZE) {
		bool got = probe_rings_get(&rec, &lost);

		if (lost)
			reader->len += sprintf(reader->text + reader->len, "# lost %llu\n", lost);
		if (!got)
			break;
		reader->len += probe_format(&rec, start, reader->text + reader->len);
		atomic64_inc(&probe_totals.read);
	}
	mutex_unlock(&probe_read_mutex);
}

static unsigned long available(void)
{
	unsigned long n;

	mutex_lock(&probe_read_mutex);
	n = probe_rings_count();
	mutex_unlock(&probe_read_mutex);
	return n;
}

/* Waits until readnum records are there, or some for PATIENCE_MS. Return: 0 or a negative errno. */
static int wait_for_records(void)
{
	unsigned long since = jiffies, n;
	DEFINE_WAIT(wait);

	for (;;) {
		n = available();
		if (READ_ONCE(dying) || n >= READ_ONCE(probe_readnum))
			return 0;
		if (!n)
			since = jiffies;
		else if (time_after_eq(jiffies, since + msecs_to_jiffies(PATIENCE_MS)))
			return 0;
		if (signal_pending(current))
			return -ERESTARTSYS;
		prepare_to_wait(readers, &wait, TASK_INTERRUPTIBLE);
		if (!READ_ONCE(dying))
			schedule_timeout(msecs_to_jiffies(PATIENCE_MS));
		finish_wait(readers, &wait);
	}
}

static ssize_t probe_read(struct file *file, char __user *to, size_t len, loff_t *pos)
{
	struct reader *reader = file->private_data;
	size_t done = 0, n;
	ssize_t err = 0;

	/* Records may come as fast as they are read: a call ends all the same. */
	len = min_t(size_t, len, READ_MAX);
	if (mutex_lock_interruptible(&reader->mutex))
		return -ERESTARTSYS;
	while (done < len) {
		if (reader->off == reader->len) {
			if (!done && !(file->f_flags & O_NONBLOCK))
				err = wait_for_records();
			if (err)
				break;
			fill(reader);
			if (!reader->len) {
				if (done || file->f_flags & O_NONBLOCK || READ_ONCE(dying))
					break;
				continue; /* another reader took what was waited for */
			}
		}
		n = min(len - done, reader->len - reader->off);
		if (copy_to_user(to + done, reader->text + reader->off, n)) {
			atomic64_inc(&probe_totals.copy_failed);
			err = -EFAULT;
			break;
		}
		reader->off += n;
		done += n;
	}
	mutex_unlock(&reader->mutex);
	if (done || !len)
		return done;
	if (err)
		return err;
	return READ_ONCE(dying) ? 0 : -EAGAIN;
}

static __poll_t probe_poll(struct file *file, poll_table *wait)
{
	struct reader *reader = file->private_data;

	/*
	 * Whoever is queued has to leave when the file goes, by EPOLLHUP: see let_go(). poll() and
	 * epoll always ask for it, and epoll may ask for more once it no longer queues; select()
	 * does not for exceptions alone.
	 */
	if (poll_requested_events(wait) & (EPOLLIN | EPOLLRDNORM | EPOLLHUP) && !READ_ONCE(dying))
		poll_wait(file, readers, wait);
	if (READ_ONCE(dying))
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	if (READ_ONCE(reader->off) < READ_ONCE(reader->len) || available())
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

static const struct proc_ops probe_proc_ops = {
	.proc_open = probe_open,
	.proc_read = probe_read,
	.proc_poll = probe_poll,
	.proc_lseek = noop_llseek,
	.proc_release = probe_release,
};

int probe_proc_init(void)
{
	readers = kmalloc(sizeof(*readers), GFP_KERNEL);
	if (!readers)
		return -ENOMEM;
	init_waitqueue_head(readers);
	if (!proc_create(FILE_NAME, 0400, init_net.proc_net, &probe_proc_ops)) {
		kfree(readers);
		return -ENOMEM;
	}
	return 0;
}

/*
 * Waits until nobody is queued at @readers: poll() and epoll hold on to the queue, not to the
 * module, and once the file is gone it can tell them nothing.
 */
static void let_go(void)
{
	/*
	 * epoll, aio and io_uring let go of a queue that wakes them with POLLFREE. poll() and
	 * select() look at the file again, learn that it has ended, and leave.
	 */
	while (waitqueue_active(readers)) {
		__wake_up(readers, TASK_NORMAL, 0, poll_to_key(EPOLLIN | EPOLLHUP | POLLFREE));
		schedule_timeout_uninterruptible(1);
	}
}

void probe_proc_exit(void)
{
	WRITE_ONCE(dying, true);
	/* By the queue's lock, who is queued from now on sees it. */
	wake_up_interruptible(readers);
	/* While there is a file to look at, and again for who came then and had seen it alive. */
	let_go();
	remove_proc_entry(FILE_NAME, init_net.proc_net);
	let_go();
	/* epoll looks at the queue once more under RCU; the last to leave may yet hold its lock. */
	synchronize_rcu();
	kfree(readers);
}
