# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Which input gets which status from khttpd: the table of docs/khttpd.md as bytes.

The unit tests feed it to the parser, the VM's tests to the loaded module.
"""

H = b"Host: a\r\n"
MAX_HEADER, MAX_FIELDS, MAX_BODY = 8192, 100, 1048576


def get(*fields, line=b"GET / HTTP/1.1", host=True):
    """A request of these field lines."""
    return b"\r\n".join([line, *([b"Host: a"] if host else []), *fields]) + b"\r\n\r\n"


def sized(length, body=b""):
    """A POST with Content-Length: LENGTH."""
    return get(b"Content-Length: " + length, line=b"POST / HTTP/1.1") + body


def chunked(body, *fields):
    """A POST whose chunked body is BODY."""
    return get(b"Transfer-Encoding: chunked", *fields, line=b"POST / HTTP/1.1") + body


def coded(value, body=b"0\r\n\r\n"):
    return get(b"Transfer-Encoding: " + value, line=b"POST / HTTP/1.1") + body


def filled(size, line=b"GET / HTTP/1.1", fill=b"X: "):
    """A request whose head has SIZE bytes."""
    bare = len(get(fill, line=line))
    return get(fill + b"x" * (size - bare), line=line)


def targeted(target, method=b"GET"):
    return get(line=method + b" " + target + b" HTTP/1.1")


def host(value, *more):
    return get(b"Host:" + value, *more, host=False)


# name, bytes, status of the answer
CASES = [
    # Methods
    ("GET", get(), 200),
    ("HEAD", get(line=b"HEAD / HTTP/1.1"), 200),
    ("OPTIONS", get(line=b"OPTIONS / HTTP/1.1"), 200),
    ("OPTIONS *", get(line=b"OPTIONS * HTTP/1.1"), 200),
    *[(m, get(line=m.encode() + b" / HTTP/1.1"), 405) for m in ("POST", "PUT", "DELETE", "PATCH", "TRACE")],
    ("CONNECT", targeted(b"example.com:443", b"CONNECT"), 405),
    ("CONNECT to IPv6", targeted(b"[::1]:443", b"CONNECT"), 405),
    ("unknown method", get(line=b"BREW / HTTP/1.1"), 501),
    ("prefix of a method", get(line=b"GE / HTTP/1.1"), 501),
    ("method in lower case", get(line=b"get / HTTP/1.1"), 501),
    ("longer than any method", get(line=b"GETTER / HTTP/1.1"), 501),
    ("method behind a byte of its own", get(line=b"GGET / HTTP/1.1"), 501),
    ("method of 300 bytes", get(line=b"M" * 300 + b" / HTTP/1.1"), 501),
    ("no method", get(line=b" / HTTP/1.1"), 400),
    ("method that is no token", get(line=b"GE(T / HTTP/1.1"), 400),
    ("method with obs-text", get(line=b"G\xc9T / HTTP/1.1"), 400),
    # Targets
    ("query", targeted(b"/a/b?c=d&e?/"), 200),
    ("percent-encoding", targeted(b"/%41%fF"), 200),
    ("every pchar", targeted(b"/azAZ09-._~!$&'()*+,;=:@/?"), 200),
    ("percent without digits", targeted(b"/%"), 400),
    ("percent with one digit", targeted(b"/%4"), 400),
    ("percent with no hex digit", targeted(b"/%4g"), 400),
    ("fragment", targeted(b"/a#b"), 400),
    *[(f"target with {c!r}", targeted(b"/" + c), 400) for c in (b'"', b"<", b">", b"\\", b"^", b"`", b"{", b"|", b"}",
                                                               b"\x00", b"\x01", b"\t", b"\x7f", b"\x80", b"\xff")],
    ("no target", get(line=b"GET HTTP/1.1"), 400),
    ("empty target", get(line=b"GET  HTTP/1.1"), 400),
    ("relative target", targeted(b"a"), 400),
    ("relative target with a path", targeted(b"a/"), 400),
    ("asterisk for GET", targeted(b"*"), 400),
    ("asterisk and more", targeted(b"*a", b"OPTIONS"), 400),
    ("absolute target", targeted(b"http://a/b?c"), 200),
    ("absolute target in capitals", targeted(b"HTTP://A"), 200),
    ("absolute target with port", targeted(b"http://a:80/"), 200),
    ("absolute target, IPv6", targeted(b"http://[::1]:80/"), 200),
    ("absolute target with the port of Host", get(b"Host: a:8081", line=b"GET http://a:8081/ HTTP/1.1", host=False), 200),
    ("absolute target whose path has what a host may not", targeted(b"http://a/b:c@d/e"), 200),
    ("absolute target and query", targeted(b"http://a?b"), 200),
    ("absolute target without host", targeted(b"http:///"), 400),
    ("absolute target without anything", targeted(b"http://"), 400),
    ("absolute target, port alone", targeted(b"http://:80/"), 400),
    ("absolute target with user", targeted(b"http://u@a/"), 400),
    ("absolute target, port too large", targeted(b"http://a:65536/"), 400),
    ("absolute target, host cut short", targeted(b"http://[::1/"), 400),
    ("another scheme", targeted(b"https://a/"), 400),
    ("another scheme of as many letters", targeted(b"hxxp://a/"), 400),
    ("half a scheme", targeted(b"http:/a"), 400),
    ("authority for GET", targeted(b"a:80"), 400),
    ("path for CONNECT", targeted(b"/", b"CONNECT"), 400),
    ("CONNECT without port", targeted(b"a", b"CONNECT"), 400),
    ("CONNECT with empty port", targeted(b"a:", b"CONNECT"), 400),
    ("CONNECT without host", targeted(b":80", b"CONNECT"), 400),
    # Which of several faults is told
    *[(f"several faults: {name}", get(*fields, line=b"POST / HTTP/" + version, host=with_host), status) for name, fields, version, with_host, status in (
        ("coding and length", (b"Transfer-Encoding: gzip", b"Content-Length: 1"), b"1.1", True, 400),
        ("coding and length, no Host", (b"Transfer-Encoding: gzip", b"Content-Length: 1"), b"1.1", False, 400),
        ("coding, no Host", (b"Transfer-Encoding: gzip",), b"1.1", False, 400),
        ("coding and expectation", (b"Transfer-Encoding: gzip", b"Expect: x"), b"1.1", True, 501),
        ("expectation and length", (b"Expect: x", b"Content-Length: 99999999"), b"1.1", True, 417),
        ("expectation, no Host", (b"Expect: x",), b"1.1", False, 400),
        ("coding in 1.0", (b"Transfer-Encoding: gzip",), b"1.0", False, 400))],
    # Versions
    ("HTTP/1.0", get(line=b"GET / HTTP/1.0", host=False), 200),
    ("HTTP/1.2", get(line=b"GET / HTTP/1.2"), 200),
    ("HTTP/1.9", get(line=b"GET / HTTP/1.9"), 200),
    ("HTTP/0.9", get(line=b"GET / HTTP/0.9"), 505),
    ("version behind a byte of its own", get(line=b"GET / HHTTP/1.1"), 400),
    ("Host behind a byte of its own", get(b"HHost: a", host=False), 400),
    ("a name that Host begins", get(b"Hosts: a", host=False), 400),
    ("HTTP/2.0", get(line=b"GET / HTTP/2.0"), 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/9.9", get(line=b"GET / HTTP/9.9"), 505),
    ("no version", b"GET /\r\n\r\n", 400),
    *[(f"version {v}", get(line=b"GET / " + v.encode()), 400) for v in
      ("HTTP/1.10", "HTTP/11.1", "HTTP/1", "HTTP/1.", "HTTP/.1", "http/1.1", "HTTP 1.1", "HTTP/1,1", "HTCP/1.1", "HTTP/x.1",
       "HTTP/1.1 ", " HTTP/1.1", "HTTP/1.1\t", "HTTP/-1.1", "HTTP/1.1;")],
    # Line ends
    ("one leading empty line", b"\r\n" + get(), 200),
    ("two leading empty lines", b"\r\n\r\n" + get(), 400),
    ("leading LF", b"\n" + get(), 400),
    ("leading CR", b"\r" + get(), 400),
    ("leading space", b" " + get(), 400),
    ("LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("LF after a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    ("LF after an unknown field", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n", 400),
    ("LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("CR in the request line", b"GET / HTTP/1.1\rX\r\nHost: a\r\n\r\n", 400),
    ("CR in a field", get(b"X: a\rb"), 400),
    ("CR at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
    ("CR CR LF", get(b"X: a\r"), 400),
    # Fields
    ("field without value", get(b"X:"), 200),
    ("white space around a value", get(b"X: \t a b \t "), 200),
    ("obs-text in a value", get(b"X: \x80\xff"), 200),
    ("every tchar in a name", get(b"!#$%&'*+-.^_`|~09azAZ: x"), 200),
    ("value of colons", get(b"X: a:b:c"), 200),
    ("NUL in a value", get(b"X: a\x00b"), 400),
    ("NUL in a name", get(b"X\x00: a"), 400),
    ("DEL in a value", get(b"X: \x7f"), 400),
    *[(f"control {c:#04x} in a value", get(b"X: a" + bytes([c])), 400) for c in range(1, 32) if c not in (9, 10, 13)],
    ("space before the colon", get(b"X : a"), 400),
    ("tab before the colon", get(b"X\t: a"), 400),
    ("space in a name", get(b"X Y: a"), 400),
    ("no name", get(b": a"), 400),
    ("no colon", get(b"X"), 400),
    ("name with a bracket", get(b"X[]: a"), 400),
    ("name with obs-text", get(b"X\xe9: a"), 400),
    ("folded field", get(b"X: a", b" b"), 400),
    ("folded by a tab", get(b"X: a", b"\tb"), 400),
    ("first field begins with a space", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    # Host
    ("no Host", get(host=False), 400),
    ("no Host, 1.2", get(line=b"GET / HTTP/1.2", host=False), 400),
    ("Host twice", get(b"Host: a"), 400),
    ("two Hosts", get(b"hOsT: b"), 400),
    ("two Hosts, HTTP/1.0", get(b"Host: b", line=b"GET / HTTP/1.0"), 400),
    ("empty Host", host(b""), 200),
    ("Host with port", host(b" example.com:8081"), 200),
    ("Host with empty port", host(b" a:"), 200),
    ("Host with white space around", host(b"\t a \t"), 200),
    ("Host of sub-delims", host(b" a!$&'()*+,;=-._~b"), 200),
    ("absolute target with a host of sub-delims", targeted(b"http://a!$&'()*+,;=b/"), 200),
    ("Host of an IPv4 address", host(b" 127.0.0.1:80"), 200),
    ("Host of an IPv6 address", host(b" [::1]:80"), 200),
    ("Host with percent-encoding", host(b" a%2e"), 200),
    ("a field that begins as Host", get(b"Hosts: b"), 200),
    ("a field that ends as Host", get(b"X-Host: b"), 200),
    *[(f"Host {v!r}", host(b" [" + v + b"]"), 200) for v in
      (b"::", b"::1", b"1::", b"1:2:3:4:5:6:7:8", b"ffff:FFFF:0:00:000:0000:7:8", b"1:2:3:4:5:6:7::", b"::2:3:4:5:6:7:8", b"1::3:4:5:6:7:8",
       b"::ffff:127.0.0.1", b"1:2:3:4:5:6:1.2.3.4", b"::255.255.255.255", b"1:2:3:4:5::0.0.0.0", b"::1.20.199.9", b"::a:1.2.3.4")],
    *[(f"Host {v!r}", host(b" [" + v + b"]"), 400) for v in
      (b":", b":1", b"1:", b":::", b"1:::2", b"1::2::3", b"12", b"....", b"::::::", b"1:2:3:4:5:6:7", b"1:2:3:4:5:6:7:8:9", b"1:2:3:4:5:6:7:8:",
       b":1:2:3:4:5:6:7:8", b"1:2:3:4:5:6:7:8::", b"1::2:3:4:5:6:7:8", b"12345::", b"::g", b"1.2.3.4", b"::1.2.3", b"::1.2.3.4.5", b"::1.2.3.",
       b"::.1.2.3", b"::256.1.1.1", b"::1.2.3.256", b"::1.2.3.1000", b"::01.2.3.4", b"::1.2.3.04", b"::1.2.3.4:5", b"::1.2.a.4", b"::a.2.3.4",
       b"1:2:3:4:5:6:7:1.2.3.4", b"1:2:3:4:5:6:7::1.2.3.4", b"1:2:3:4:5:1.2.3.4", b"::1..2.3", b"::1%25lo", b"v1.x", b":1.2.3.4", b"1::1.2.3.4:")],
    ("Host of an IPv6 address with the largest port", host(b" [1:2:3:4:5:6:7:8]:65535"), 200),
    ("Host of an IPv6 address with too large a port", host(b" [::255.255.255.255]:65536"), 400),
    *[(f"Host {v!r}", host(b" " + v), 400) for v in (b"a b", b"a/b", b"a@b", b"a:b", b"a:65536", b"a:000080", b"[::1", b"::1",
                                                      b"[x]", b"[]", b"[:1:2]", b"[:1:2::]", b"[:1::2]", b"[::1]a", b"a%2", b"a%zz", b"a\x80", b"a:80:80", b'"a"')],
    # Content-Length
    ("body", sized(b"5", b"hello"), 405),
    ("body of a GET", get(b"Content-Length: 5") + b"hello", 200),
    ("Content-Length before Host", b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello", 405),
    ("Transfer-Encoding before Host", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n0\r\n\r\n", 405),
    ("empty body", sized(b"0"), 405),
    ("Content-Length with zeros before it", sized(b"0000000000000000000005", b"hello"), 405),
    ("Content-Length with white space around", sized(b" \t5 \t ", b"hello"), 405),
    ("name in other case", get(b"cOnTeNt-LeNgTh: 5") + b"hello", 200),
    *[(f"Content-Length {v!r}", sized(v, b"x" * 20), 400) for v in
      (b"", b"+1", b"-1", b"1 1", b"1,1", b"1, 1", b"0x1", b"1.0", b"1e1", b"1;", b"a", b"1a", b'"1"', b"\xb9", b"1\x0b")],
    ("Content-Length twice, different", get(b"Content-Length: 1", b"Content-Length: 2") + b"xx", 400),
    ("Content-Length twice, the same", get(b"Content-Length: 1", b"Content-Length: 1") + b"x", 400),
    ("Content-Length above max_body", sized(str(MAX_BODY + 1).encode()), 413),
    ("Content-Length of 2^32", sized(b"4294967296"), 413),
    ("Content-Length of 2^64 - 1", sized(b"18446744073709551615"), 413),
    ("Content-Length of 2^64", sized(b"18446744073709551616"), 413),
    ("Content-Length of 2^64 + 5", sized(b"18446744073709551621"), 413),
    ("Content-Length of 5,000 digits", sized(b"9" * 5000), 413),
    # Transfer-Encoding
    ("chunked", chunked(b"5\r\nhello\r\n0\r\n\r\n"), 405),
    ("chunked body of a GET", get(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n", 200),
    ("chunked in capitals", coded(b"CHUNKED"), 405),
    ("chunked, white space around", coded(b" \tchunked\t "), 405),
    ("chunked with Content-Length", chunked(b"0\r\n\r\n", b"Content-Length: 5"), 400),
    ("Content-Length with chunked", get(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    ("chunked in HTTP/1.0", get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    *[(f"Transfer-Encoding {v!r}", coded(v), 400) for v in
      (b"", b",", b"chunked,", b",chunked", b"chunked, chunked", b"chunked, gzip", b"chunked;a=b", b"chunked x", b"chunked\x0b",
       b"\x00chunked")],
    ("Transfer-Encoding twice", chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 400),
    *[(f"Transfer-Encoding {v!r}", coded(v), 501) for v in
      (b"gzip, chunked", b"gzip", b"identity", b"xchunked", b"chunkedx", b"chunk", b"gzip;q=1, chunked", b'"chunked"')],
    # Chunks
    ("chunks", chunked(b"1\r\na\r\nA\r\n0123456789\r\n00f\r\n012345678901234\r\n000\r\n\r\n"), 405),
    ("chunk of CR LF", chunked(b"2\r\n\r\n\r\n0\r\n\r\n"), 405),
    ("chunk extension", chunked(b"1;a\r\nx\r\n0;b=c;d=\"e;\\\"\r\r\n\r\n".replace(b"\r\r\n", b"\"\r\n")), 405),
    ("chunk extension behind one that was quoted", chunked(b'1;a="b"\r\nx\r\n1;c\r\nx\r\n0\r\n\r\n'), 405),
    ("chunk extension, quoted", chunked(b'1;a="b\t;,\x80\\"c"\r\nx\r\n0\r\n\r\n'), 405),
    ("trailer fields", chunked(b"0\r\nA: b\r\nContent-Length: 5\r\nHost: x y\r\n\r\n"), 405),
    *[(f"chunk size {v!r}", chunked(v + b"\r\nx\r\n0\r\n\r\n"), 400) for v in
      (b"", b"g", b"-1", b"+1", b"0x1", b"1 ", b" 1", b"1\t", b"1\x00", b"11111111111111111", b"00000000000000001", b"1;", b"1; a",
       b"1;a=", b"1;=b", b"1;a==b", b'1;a="b', b'1;a="b"c', b"1;a b", b"1;\x01", b'1;a="\x01"', b"1,a", b'1;a="\\\r"', b'1;a="\\\n"',
       b'1;a="\\\x00"', b'1;a="\\\x7f"')],
    *[(f"chunk size {v!r}", chunked(v + b"\r\nx"), 413) for v in (b"fffffffffffffff", b"ffffffffffffffff", b"100001")],
    ("chunks above max_body", chunked(b"fffff\r\n" + b"x" * 0xfffff + b"\r\n2\r\nxx\r\n0\r\n\r\n"), 413),
    ("chunk sizes whose sum overflows", chunked(b"1\r\nx\r\nffffffffffffffff\r\nx"), 413),
    ("chunk longer than its size", chunked(b"1\r\nxy\r\n0\r\n\r\n"), 400),
    ("chunk shorter than its size", chunked(b"2\r\nx\r\n0\r\n\r\n"), 400),
    ("LF after a chunk size", chunked(b"1\nx\r\n0\r\n\r\n"), 400),
    ("CR X after a chunk size", chunked(b"1\rXx\r\n0\r\n\r\n"), 400),
    ("LF after a chunk", chunked(b"1\r\nx\n0\r\n\r\n"), 400),
    ("CR X after a chunk", chunked(b"1\r\nx\rX0\r\n\r\n"), 400),
    ("X LF after a chunk", chunked(b"1\r\nxX\n0\r\n\r\n"), 400),
    ("long head, long trailer", chunked(b"0\r\nA: " + b"b" * 6000 + b"\r\n\r\n", b"X: " + b"y" * 6000), 405),
    ("many fields, many trailer fields", chunked(b"0\r\n" + b"A: b\r\n" * 60 + b"\r\n", *[b"X: y"] * 60), 405),
    ("long head, long extension", chunked(b"1;" + b"a" * 6000 + b"\r\nx\r\n0\r\n\r\n", b"X: " + b"y" * 6000), 405),
    ("port of the host, long extension", b"POST / HTTP/1.1\r\nHost: a:8081\r\nTransfer-Encoding: chunked\r\n\r\n1;"
     + b"a" * 6000 + b"\r\nx\r\n0\r\n\r\n", 405),
    ("LF after the last chunk", chunked(b"0\n\r\n"), 400),
    ("LF after the trailer", chunked(b"0\r\n\n"), 400),
    ("trailer field without a name", chunked(b"0\r\n: a\r\n\r\n"), 400),
    ("trailer field folded", chunked(b"0\r\nA: b\r\n c\r\n\r\n"), 400),
    ("trailer field with NUL", chunked(b"0\r\nA: \x00\r\n\r\n"), 400),
    ("chunk extensions too long", chunked(b"1;" + b"a" * (MAX_HEADER + 1) + b"\r\nx\r\n0\r\n\r\n"), 413),
    ("chunk extensions too long together", chunked((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 9 + b"0\r\n\r\n"), 413),
    ("trailer too long", chunked(b"0\r\nA: " + b"b" * MAX_HEADER + b"\r\n\r\n"), 431),
    ("trailer of too many fields", chunked(b"0\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"), 431),
    # Expect
    ("Expect", get(b"Expect: 100-continue", b"Content-Length: 1", line=b"GET / HTTP/1.1") + b"x", 200),
    ("Expect without a body", get(b"Expect: 100-Continue"), 200),
    ("empty Expect", get(b"Expect:"), 200),
    *[(f"Expect {v!r}", get(b"Expect: " + v), 417) for v in (b"200-ok", b"100-continue, x", b"x, 100-continue", b"100-continu",
                                                              b"100-continuee", b"100-continue;a=b", b'"100-continue"', b"100 continue")],
    ("Expect in HTTP/1.0", get(b"Expect: x", line=b"GET / HTTP/1.0"), 200),
    ("Expect 100 in HTTP/1.0", get(b"Expect: 100-continue", b"Content-Length: 1", line=b"GET / HTTP/1.0") + b"x", 200),
    # Connection
    *[(f"Connection {v!r}", get(b"Connection: " + v), 200) for v in
      (b"close", b"keep-alive", b"Upgrade, close", b"", b",", b" , close , ", b"x", b"closed", b"keep-alive\t,\tx")],
    *[(f"Connection {v!r}", get(b"Connection: " + v), 400) for v in (b"a b", b"a=b", b'"close"', b"close;x", b"\x80", b"a\x00")],
    # Limits
    ("head of max_header bytes", filled(MAX_HEADER), 200),
    ("head of one more", filled(MAX_HEADER + 1), 431),
    ("request line of max_header bytes", b"GET /" + b"a" * (MAX_HEADER - 16) + b" HTTP/1.1\r\n\r\n", 431),
    ("request line of one more", b"GET /" + b"a" * (MAX_HEADER - 15) + b" HTTP/1.1\r\n\r\n", 414),
    ("target without an end", b"GET /" + b"a" * 20000, 414),
    ("method without an end", b"A" * 20000, 414),
    ("field without an end", b"GET / HTTP/1.1\r\nX: " + b"a" * 20000, 431),
    ("max_headers fields", get(*[b"X: y"] * (MAX_FIELDS - 1)), 200),
    ("one field more", get(*[b"X: y"] * MAX_FIELDS), 431),
    ("body of max_body bytes", sized(str(MAX_BODY).encode(), b"x" * MAX_BODY), 405),
    # Garbage
    ("TLS", bytes.fromhex("16030100f8010000f40303") + b"x" * 30, 400),
    ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n", 400),
    ("NULs", bytes(100), 400),
    ("all bytes", bytes(range(256)), 400),
]
