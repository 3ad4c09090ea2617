#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Reads /proc/net/tcpprobe into a directory: the raw log, a CSV file a flow, a summary, and on request pictures.

Ctrl-C or SIGTERM ends it and leaves complete files. docs/tcpprobe.md tells what the fields mean.
"""

import argparse
import collections
import contextlib
import csv
import errno
import io
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PROBE = Path("/proc/net/tcpprobe")
STATISTICS = Path("/proc/net/stat/tcpprobe_plus")
PLOTS = Path(__file__).resolve().parent.parent / "plots" / "tcpprobe.gp"
PICTURES = ("cwnd", "rtt", "flight", "pacing")

# A line's fields, in order, and what they become in CSV: name with unit, and what the value is divided by.
FIELDS = {
    "type": ("type", None),
    "time": ("time (s)", None),
    "saddr": None,
    "sport": None,
    "daddr": None,
    "dport": None,
    "length": ("length (B)", 1),
    "flags": ("flags", None),
    "seq": ("seq (B)", 1),
    "ack": ("ack (B)", 1),
    "ca_state": ("ca_state", 1),
    "snd_nxt": ("snd_nxt (B)", 1),
    "snd_una": ("snd_una (B)", 1),
    "write_seq": ("write_seq (B)", 1),
    "wqueue": ("wqueue (B)", 1),
    "snd_cwnd": ("snd_cwnd (segments)", 1),
    "ssthresh": ("ssthresh (segments)", 1),
    "snd_wnd": ("snd_wnd (B)", 1),
    "srtt": ("srtt (us)", 8),
    "mdev": ("mdev (us)", 4),
    "rttvar": ("rttvar (us)", 4),
    "rto": ("rto (ms)", 1),
    "packets_out": ("packets_out (segments)", 1),
    "lost_out": ("lost_out (segments)", 1),
    "sacked_out": ("sacked_out (segments)", 1),
    "retrans_out": ("retrans_out (segments)", 1),
    "retrans": ("retrans (segments)", 1),
    "frto_counter": ("frto_counter", 1),
    "rto_num": ("rto_num", 1),
    "sk_pacing_rate": ("sk_pacing_rate (B/s)", 1),
}
NAMES = tuple(FIELDS)
Record = collections.namedtuple("Record", NAMES)
HEADER = [column[0] for column in FIELDS.values() if column]
TYPES = ("recv", "send", "timeout", "setup", "done", "purge")
RECV, SEND, TIMEOUT, SETUP, DONE, PURGE = range(6)
SYN = 2
ACK = 16
SPACE = 1 << 32  # of sequence numbers
WINDOW_MAX = 1 << 30  # RFC 7323
FLUSH_BYTES = 1 << 20  # of CSV text held back
LINE_MAX = 4096  # bytes; the probe's have 512 at most
NO_PACING = (1 << 32) - 1, (1 << 64) - 1  # sk_pacing_rate of a connection that is not paced
# What a line's words look like. A log may come from anybody: addresses become names of files, and words of gnuplot's.
WORDS = {name: r"([0-9]{1,20})" for name in NAMES} | {
    "time": r"([0-9]{1,12}\.[0-9]{1,9})", "flags": "(0x[0-9a-f]{1,4})", "saddr": "([0-9a-f:.]{2,45})", "daddr": "([0-9a-f:.]{2,45})"}
LINE = re.compile(" ".join(WORDS.values()))
LOST = re.compile("# lost [0-9]{1,20}")


class Stop(Exception):
    """A message for the user, and an exit status."""

    def __init__(self, text, status=2):
        super().__init__(text)
        self.status = status


def say(text):
    print(f"read_data.py: {text}", file=sys.stderr)


def parse(line):
    """A Record of a line, ValueError if it is none."""
    match = LINE.fullmatch(line)
    if not match:
        words = line.split(" ")
        if len(words) != len(NAMES):
            raise ValueError(f"{len(words)} fields, not {len(NAMES)}")
        raise ValueError(next(f"{name} is {word[:80]!r}" for name, word in zip(NAMES, words) if not re.fullmatch(WORDS[name], word)))
    values = [word if name in ("time", "saddr", "daddr") else int(word, 0) for name, word in zip(NAMES, match.groups())]
    if values[0] >= len(TYPES):
        raise ValueError(f"type {values[0]} is not known")
    return Record(*values)


# --- what is kept of a flow ------------------------------------------------------------------------


class Unwrapped:
    """Follows a 32-bit sequence number over its wraps: from the lowest to the highest byte that is known of."""

    def __init__(self):
        self.last = self.low = self.high = None
        self.is_known = False  # where it begins

    def place(self, value):
        """Where a number is, beside the last one."""
        if self.last is None:
            self.last = self.low = self.high = value
        step = (value - self.last) % SPACE
        return self.last + (step if step < SPACE // 2 else step - SPACE)

    def see(self, value, length):
        """A segment; one that no window reaches is nobody's, whatever it says."""
        place = self.place(value)
        if abs(place - self.last) <= WINDOW_MAX:
            self.last = place
            self.low = self.low if self.is_known else min(self.low, place)
            self.high = max(self.high, place + length)

    def reach(self, value):
        """All before that has been sent, or has come, seen or not; one more than was seen is the FIN."""
        self.last = self.place(value)
        self.low = self.low if self.is_known else min(self.low, self.last)
        self.is_known = True
        if self.last > self.high + 1:
            self.high = self.last

    def end(self, value):
        """Nothing from there on has been taken."""
        self.reach(value)
        self.high = min(self.high, self.last)

    def span(self):
        return 0 if self.last is None else self.high - self.low


class Distribution:
    """Minimum, median and maximum of any number of values in little memory: three digits of each count."""

    def __init__(self):
        self.counts = collections.Counter()
        self.low = self.high = None

    def add(self, value):
        self.low = value if self.low is None else min(self.low, value)
        self.high = value if self.high is None else max(self.high, value)
        step = 10 ** max(0, len(str(int(value))) - 3)
        self.counts[value if step == 1 else round(value / step) * step] += 1

    def median(self):
        left = (sum(self.counts.values()) + 1) // 2
        for value in sorted(self.counts):
            left -= self.counts[value]
            if left <= 0:
                return min(max(value, self.low), self.high)
        return None

    def summary(self):
        return [self.low, self.median(), self.high]


class Flow:
    """One direction's view of a connection: what its local end knew, from its first record to its last."""

    def __init__(self, number, record):
        self.number = number
        self.name = f"{endpoint(record.saddr, record.sport)} {endpoint(record.daddr, record.dport)}"
        self.file = "flow-{:04}_{}_{}_{}_{}.csv".format(number, record.saddr.replace(":", "-"), record.sport,
                                                        record.daddr.replace(":", "-"), record.dport)
        self.began = self.ended = float(record.time)
        self.records = 0
        self.is_open = self.is_done = False
        self.sent, self.received = Unwrapped(), Unwrapped()
        self.srtt, self.cwnd = Distribution(), Distribution()
        self.timeouts = self.lost = self.lost_out = 0
        self.retrans = [None, 0]

    def add(self, record):
        self.records += 1
        if record.type == PURGE:  # addresses only, and long after
            self.is_done = True
            return
        self.ended = float(record.time)
        self.is_open |= not is_syn(record) and record.type != TIMEOUT
        self.is_done |= record.type == DONE
        self.timeouts += record.type == TIMEOUT
        self.count_bytes(record)
        if record.srtt:
            self.srtt.add(record.srtt / 8)
        self.cwnd.add(record.snd_cwnd)
        self.lost += max(0, record.lost_out - self.lost_out)
        self.lost_out = record.lost_out
        if self.retrans[0] is None:
            self.retrans[0] = record.retrans
        self.retrans[1] = record.retrans

    def count_bytes(self, record):
        """By the segments that were sampled, and, where some were not, by what the others acknowledge and follow."""
        if record.type == SEND and record.length:
            self.sent.see(record.seq + bool(record.flags & SYN), record.length)  # TCP Fast Open
        if not is_syn(record):
            self.sent.reach(record.snd_nxt)
        # What completes a handshake tells where the peer begins, and may carry data: behind a SYN with TCP Fast Open, with TCP_DEFER_ACCEPT,
        # or after a lost ACK. A connection that is restored (TCP_REPAIR) has none.
        is_set_up = record.type == SETUP and record.flags
        if is_set_up or record.type == RECV:
            if is_set_up or record.length:
                self.received.see(record.seq + bool(record.flags & SYN), record.length)
        elif record.type == DONE:
            self.received.end(record.ack)
        elif record.type == SETUP or (self.is_open if record.type == TIMEOUT else record.flags & ACK):  # before that nothing is expected of the peer yet
            self.received.reach(record.ack)

    def is_over(self, record):
        """Whether a record of the same addresses is of a new connection."""
        if self.is_done:
            return True
        return self.is_open and (record.type == SETUP or is_syn(record))

    SUMMARY = ("flow", "local", "remote", "duration (s)", "sent (B)", "received (B)", "retransmitted (segments)",
               "timeouts", "lost (segments)", "srtt min (us)", "srtt median (us)", "srtt max (us)",
               "cwnd min (segments)", "cwnd median (segments)", "cwnd max (segments)", "records", "file")

    def summary(self):
        local, remote = self.name.split(" ")
        return [self.number, local, remote, round(self.ended - self.began, 6), self.sent.span(), self.received.span(),
                self.retrans[1] - (self.retrans[0] or 0), self.timeouts, self.lost, *self.srtt.summary(),
                *self.cwnd.summary(), self.records, self.file]


def is_syn(record):
    """Whether it is the one by which our end opens a connection."""
    return record.type == SEND and bool(record.flags & SYN)


def endpoint(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# --- the directory ---------------------------------------------------------------------------------


@contextlib.contextmanager
def naming(path):
    """An error of a read or write inside does not tell whose it was: now it does."""
    try:
        yield
    except OSError as err:
        err.filename = err.filename or str(path)
        raise


def free_name(archive, path):
    """A name in the archive, which is made, that nothing has."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
    archive.mkdir(parents=True, exist_ok=True)
    for n in range(1000):
        aside = archive / (f"{path.name}-{stamp}" + (f"-{n}" if n else ""))
        if not aside.exists():
            break
    return aside


def empty_directory(path):
    """Moves what is in it aside within it, where the directory itself cannot go: it is a file system, or the archive is on another."""
    inside = [entry for entry in path.iterdir() if entry.name != "archive"]
    if not inside:
        return
    aside = free_name(path / "archive", path)
    aside.mkdir()
    for entry in inside:
        entry.rename(aside / entry.name)
    say(f"moved what was in {path} to {aside}")


def make_directory(path, archive):
    """Makes path; moves what has that name aside. Nothing is ever overwritten."""
    if path.exists():
        aside = free_name(archive, path)
        try:
            path.rename(aside)
            say(f"moved the old {path} to {aside}")
        except OSError as err:
            if err.errno not in (errno.EBUSY, errno.EXDEV, errno.EINVAL) or not path.is_dir():
                raise
            empty_directory(path)
    path.mkdir(parents=True, exist_ok=True)


class RawLog:
    """What was read, byte by byte, in files of a bounded size: tcpprobe-0001.log and on."""

    def __init__(self, directory, limit, keep):
        self.directory = directory
        self.limit = limit
        self.keep = keep
        self.files = collections.deque()
        self.number = 0
        self.file = None
        self.rotate()

    def rotate(self):
        self.close()
        self.number += 1
        path = self.directory / f"tcpprobe-{self.number:04}.log"
        self.file = open(path, "wb")
        self.files.append(path)
        if self.keep and len(self.files) > self.keep:
            self.files.popleft().unlink()

    def write(self, lines):
        """Whole lines; none is cut, and a file grows beyond the limit only by one that is longer."""
        while lines:
            room = self.limit - self.file.tell()
            cut = len(lines) if len(lines) <= room else lines.rfind(b"\n", 0, max(room, 0)) + 1
            if not cut and self.file.tell():
                self.rotate()
                continue
            cut = cut or lines.find(b"\n") + 1
            with naming(self.file.name):
                self.file.write(lines[:cut])
            lines = lines[cut:]

    def close(self):
        if self.file:
            with naming(self.file.name):
                self.file.close()


class FlowFiles:
    """Sorts records into flows, and writes each flow's CSV file, some at a time."""

    def __init__(self, directory):
        self.directory = directory
        self.live = {}
        self.flows = []
        self.pending = collections.defaultdict(io.StringIO)
        self.size = 0
        self.records = 0

    def add(self, record):
        key = record[2:6]
        flow = self.live.get(key)
        if flow is None or flow.is_over(record):
            flow = self.live[key] = Flow(len(self.flows) + 1, record)
            self.flows.append(flow)
            self.row(flow, HEADER)
        flow.add(record)
        self.records += 1
        self.row(flow, csv_row(record))
        if self.size > FLUSH_BYTES:
            self.flush()

    def row(self, flow, row):
        self.size += csv.writer(self.pending[flow.file]).writerow(row)

    def flush(self):
        """A file is open only meanwhile, so that any number of flows will do. What cannot be written is kept, keeps no other file from being
        written, and nothing is written twice."""
        failed = None
        for name in list(self.pending):
            try:
                append(self.directory / name, self.pending[name].getvalue())
            except OSError as err:
                failed = failed or err
            else:
                del self.pending[name]
        self.size = 0
        if failed:
            raise failed

    def write_summary(self):
        path = self.directory / "summary.csv"
        with naming(path), open(path, "w", newline="", encoding="ascii") as f:
            writer = csv.writer(f)
            writer.writerow(Flow.SUMMARY)
            writer.writerows(flow.summary() for flow in self.flows)


def append(path, text):
    """All of it or, but for an error while that is taken back, none."""
    size = path.stat().st_size if path.exists() else 0
    with naming(path):
        try:
            with open(path, "a", newline="", encoding="ascii") as f:
                f.write(text)
        except OSError:
            if path.exists():
                os.truncate(path, size)
            raise


def csv_row(record):
    row = []
    for name, value in zip(NAMES, record):
        column = FIELDS[name]
        if column is None:
            continue
        if name == "type":
            row.append(TYPES[value])
        elif name == "sk_pacing_rate" and value in NO_PACING:
            row.append("")
        elif column[1] in (None, 1):
            row.append(value)
        else:
            row.append(f"{value / column[1]:g}" if value < 1e6 else f"{value / column[1]:.3f}")
    return row


# --- other forms, on standard output ----------------------------------------------------------------


def print_json(record):
    values = record._asdict()
    values["time"] = float(record.time)
    print(json.dumps(values))


def print_tcp_probe(record):
    """The columns of the module that Linux had until 4.16: what arrived on established connections.

    It printed addresses for "port" as [addr]:port too, sequence numbers in hexadecimal, srtt in us. Its last column,
    the receive window, is not sampled here and left out, as it was before 3.4.
    """
    if record.type == RECV:
        print(f"{record.time} {endpoint(record.saddr, record.sport)} {endpoint(record.daddr, record.dport)} "
              f"{record.length} {record.snd_nxt:#x} {record.snd_una:#x} {record.snd_cwnd} {record.ssthresh} "
              f"{record.snd_wnd} {record.srtt >> 3}")


FORMATS = {"csv": None, "json": print_json, "tcp_probe": print_tcp_probe}


# --- reading ----------------------------------------------------------------------------------------


class Source:
    """The probe's file, or a recorded log.

    A thread of its own reads it and writes the raw log: the probe's rings are emptied in time even if sorting what was
    read takes longer, as it does when there is much.
    """

    WAITING = 512  # chunks that may wait to be sorted, 256 KiB each at most

    def __init__(self, path, recorded, duration):
        self.path = path
        self.recorded = recorded
        self.duration = duration
        self.stopped = False
        self.raw = None
        self.rest = b""
        self.queue = queue.Queue(self.WAITING)
        try:
            self.fd = os.open(path, os.O_RDONLY | (0 if recorded else os.O_NONBLOCK))
        except FileNotFoundError as err:
            hint = "" if recorded else "; load the module: bash tcpprobe/reload_module.sh 0"
            raise Stop(f"{path} is not there{hint}") from err
        except PermissionError as err:
            raise Stop(f"{path}: {err.strerror}" + ("" if recorded else "; reading it takes CAP_NET_ADMIN")) from err

    def stop(self, *_):
        self.stopped = True

    def chunks(self, raw):
        """Whole lines, as they come; b"" now and then, when there are none. They go to raw first, if there is one. In the end perhaps what
        a recorded log has of a last line."""
        self.raw = raw
        threading.Thread(target=self.run, daemon=True).start()
        while True:
            try:
                data = self.queue.get(timeout=0.2)
            except queue.Empty:
                data = b""
            if data is None:
                return
            if isinstance(data, Exception):
                raise data
            yield data

    def run(self):
        try:
            whole = self.read()
            if self.rest and whole:  # a recorded log that was cut off
                self.queue.put(self.rest)
            self.queue.put(None)
        except Exception as err:  # whatever it is, chunks() raises it: who waits for the queue must not wait for ever
            self.queue.put(err)

    def hand_on(self, data):
        data = self.rest + data
        cut = data.rfind(b"\n") + 1
        self.rest = data[cut:][:LINE_MAX]  # a line that is longer is none, so the rest of it may go
        if cut:
            if self.raw:
                self.raw.write(data[:cut])
            self.queue.put(data[:cut])

    def read(self):
        """Hands on what there is until it ends or is to be ended. Return: whether a recorded log was read to its end; if not, the
        line that has come in part is none."""
        began = time.monotonic()
        grace = None
        while True:
            now = time.monotonic()
            if self.stopped or (self.duration and now >= began + self.duration):
                if self.recorded:
                    return False
                grace = grace or now + 1  # what is in the rings is read to the end, but not forever
                if now > grace and not self.rest:
                    return False
            if self.recorded and not select.select([self.fd], [], [], 0.2)[0]:
                continue  # a pipe whose writer is silent; it may yet have to end
            try:
                # In the end a byte at a time, so that no more is begun than the line that is to be completed.
                data = os.read(self.fd, 1 if grace and now > grace else 1 << 18)
            except BlockingIOError:
                if grace and (not self.rest or now > grace + 1):
                    return False
                select.select([self.fd], [], [], 0.2)
                continue
            except OSError as err:
                if err.errno != errno.EIO or self.recorded:
                    err.filename = str(self.path)
                    raise
                data = b""
            if not data:
                if not self.recorded:
                    say("the module was unloaded; what it had to tell until then is here")
                return self.recorded
            self.hand_on(data)


class Reader:
    """Hands lines from a source to where they belong."""

    def __init__(self, flows, show):
        self.flows = flows
        self.show = show
        self.lost = 0
        self.number = 0
        self.bad = 0

    def take(self, lines):
        """Lines, each with its newline: a last one that has none was cut off, even if it looks whole, as its last number may not be."""
        *whole, rest = lines.decode("ascii", "replace").split("\n")
        for line in whole:
            self.number += 1
            self.line(line.removesuffix("\r"))
        if rest:
            self.number += 1
            self.is_bad(rest, "it was cut off")

    def is_bad(self, line, why):
        self.bad += 1
        if self.bad == 1:
            say(f"line {self.number} is no record, {why}: {line[:200]!r}")

    def line(self, line):
        try:
            if line.startswith("# lost "):
                if not LOST.fullmatch(line):
                    raise ValueError("what is lost has no number")
                self.lost += int(line[7:])
                return
            if not line or line.startswith("#"):
                return
            record = parse(line)
        except (ValueError, IndexError) as err:
            self.is_bad(line, err)
            return
        self.flows.add(record)
        if self.show:
            self.show(record)


class Progress:
    """A line on the terminal that is written over and over."""

    def __init__(self):
        self.on = sys.stderr.isatty()
        self.began = time.monotonic()
        self.next = 0

    def tell(self, reader):
        now = time.monotonic()
        if self.on and now >= self.next:
            self.next = now + 0.5
            print(f"\r{now - self.began:8.1f} s  {reader.flows.records:,} records  {len(reader.flows.flows):,} flows  "
                  f"{reader.lost:,} lost ", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.on:
            print(file=sys.stderr)


def table(flows, limit=50):
    """The summary for a person."""
    head = ("flow", "local", "remote", "s", "sent", "received", "retr", "rto", "lost", "srtt min/med/max ms",
            "cwnd min/med/max")
    rows = [head]
    for flow in flows[:limit]:
        v = flow.summary()
        srtt = "-" if v[9] is None else "/".join(f"{x / 1000:.3g}" for x in v[9:12])
        cwnd = "-" if v[12] is None else "/".join(str(x) for x in v[12:15])
        rows.append((str(v[0]), v[1], v[2], f"{v[3]:.3f}", f"{v[4]:,}", f"{v[5]:,}", str(v[6]), str(v[7]), str(v[8]),
                     srtt, cwnd))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) if i in (1, 2) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
             for row in rows]
    if len(flows) > limit:
        lines.append(f"... and {len(flows) - limit:,} more: see summary.csv")
    return "\n".join(line.rstrip() for line in lines)


def quoted(text):
    """As a string of gnuplot's; in double quotes it would run what stands between backquotes."""
    return "'" + text.replace("'", "''") + "'"


def draw(directory, flows, most, caption):
    """The pictures, of the flows that sent the most: it is the sender whose window it is."""
    chosen = sorted((flow for flow in flows if flow.records > 1), key=lambda f: (-f.sent.span(), -f.records))[:most]
    chosen.sort(key=lambda f: f.number)
    if not chosen:
        say("no flow has two records: nothing to draw")
        return
    for picture in PICTURES:
        out = directory / f"{picture}.png"
        # Where the files are, so that gnuplot is told plain names whatever the directory is called.
        settings = {"kind": picture, "out": out.name, "files": " ".join(flow.file for flow in chosen),
                    "names": " ".join(flow.name.replace(" ", ">") for flow in chosen), "caption": caption}
        text = "; ".join(f"{name}={quoted(value)}" for name, value in settings.items())
        try:
            subprocess.run(["gnuplot", "-e", text, PLOTS], cwd=directory, check=True)
        except FileNotFoundError as err:
            raise Stop("--plot needs gnuplot (Debian package gnuplot-nox)") from err
        except subprocess.CalledProcessError as err:
            raise Stop(f"gnuplot could not draw {out}", 1) from err
        print(out)


def size(text):
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    value = int(text[:-1] if factor > 1 else text) * factor
    if value < 1:
        raise ValueError(text)
    return value


def seconds(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def count(text):
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def panels(text):
    value = int(text)
    if not 1 <= value <= 400:  # of more the picture would be higher than a PNG of Cairo's may be
        raise ValueError(text)
    return value


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("output"), metavar="DIR",
                        help="directory for all files (default: output)")
    parser.add_argument("--archive", type=Path, default=Path("archive"), metavar="DIR",
                        help="where an older output directory is moved (default: archive); if it cannot go there, what is in "
                             "it goes to an archive within it")
    parser.add_argument("--follow", type=Path, metavar="FILE",
                        help="work on a recorded log, to its end, in place of the probe; - is standard input")
    parser.add_argument("--duration", type=seconds, metavar="S", help="stop after S seconds")
    parser.add_argument("--rotate", type=size, default=size("100M"), metavar="SIZE",
                        help="begin a new file of the raw log at SIZE bytes, K, M and G may follow (default: 100M)")
    parser.add_argument("--keep", type=count, default=0, metavar="N",
                        help="keep the last N files of the raw log only (default: 0, all)")
    parser.add_argument("--format", choices=FORMATS, default="csv",
                        help="print each record too: json, an object a line with the fields' raw values; tcp_probe, the "
                             "columns of the module that Linux had until 4.16 (received segments only)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format=json")
    parser.add_argument("--plot", action="store_true", help="draw pictures of the flows at the end (gnuplot)")
    parser.add_argument("--caption", default="", metavar="TEXT", help="what stands under the pictures, in one line")
    parser.add_argument("--plot-flows", type=panels, default=20, metavar="N",
                        help="draw at most N flows, those that sent the most (default: 20, at most 400)")
    return parser.parse_args()


def write_statistics(directory):
    try:
        text = STATISTICS.read_text(encoding="ascii")
    except OSError as err:
        text = f"# {STATISTICS}: {err.strerror}\n"
    path = directory / "statistics.txt"
    with naming(path):
        path.write_text(text, encoding="ascii")


def main():
    options = parse_arguments()
    if sys.stdout is None:
        raise Stop("standard output is closed")
    recorded = options.follow is not None
    path = Path("/dev/stdin") if str(options.follow) == "-" else options.follow or PROBE
    source = Source(path, recorded, options.duration)
    signal.signal(signal.SIGINT, source.stop)
    signal.signal(signal.SIGTERM, source.stop)
    make_directory(options.output, options.archive)
    raw = None if recorded else RawLog(options.output, options.rotate, options.keep)
    reader = Reader(FlowFiles(options.output), FORMATS[options.format])
    progress = Progress()
    try:
        for lines in source.chunks(raw):
            reader.take(lines)
            progress.tell(reader)
    finally:  # whatever goes wrong, also with one of these, what was read is kept
        progress.end()
        with contextlib.ExitStack() as last:  # in the order of the file's lines, from below
            if raw:
                last.callback(write_statistics, options.output)
                last.callback(raw.close)
            last.callback(reader.flows.write_summary)
            last.callback(reader.flows.flush)
    chatter = sys.stdout if options.format == "csv" else sys.stderr
    flows = reader.flows.flows
    print(table(flows), file=chatter)
    print(f"{reader.flows.records:,} records of {len(flows):,} flows, {reader.lost:,} lost; files in {options.output}/",
          file=chatter)
    if options.plot:
        draw(options.output, flows, options.plot_flows, options.caption)
    if reader.bad:
        raise Stop(f"{reader.bad:,} lines were no records", 1)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except Stop as stop:
        say(stop)
        sys.exit(stop.status)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # then whoever read our output has gone
            say(f"{error.filename or 'standard output'}: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more
        sys.exit(1)
