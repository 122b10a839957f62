"""Rows of clients that break, or strain, the rules of HTTP."""

from __future__ import annotations

from collections.abc import Callable

from reliability.hostile.bench import attacked
from reliability.hostile.cases import (
    NDJSON,
    Case,
    Sent,
    bad_json,
    good,
    good_file,
    good_lines,
    head,
    in_chunks,
    lines,
    put,
    report,
)
from reliability.hostile.floods import flood
from reliability.row import Outcome, Site

# Silence within a body ends soon, so that cases which run into that are quick.
LIMITS = {"body_timeout": "2s", "keepalive_timeout": "10s"}
ROUNDS = 12
GONE = ((), (400,))
"""The client has said that nothing more comes: an answer has nobody to read it."""


def rounds(cases: Callable[[str], list[Case]]) -> Callable[[Site], Outcome]:
    """A row that sends all cases again and again, each time cut otherwise."""

    def run(site: Site) -> Outcome:
        outcome = Outcome()
        with attacked(site, outcome, "cases", limits=LIMITS) as bench:
            bench.run([case for number in range(site.of(ROUNDS)) for case in cases(f"r{number}")])
        return outcome

    return run


# --- half-closed ---------------------------------------------------------------------------------------------------


def half_closed(name: str) -> list[Case]:
    """Clients that shut their side: after whole requests, and within one."""
    made = []
    whole = {
        "a report": good(f"{name}-a"),
        "lines": good_lines(f"{name}-b"),
        "a file": good_file(f"{name}-c"),
        "a large file": good_file(f"{name}-d", 700_000),
        "chunks": _chunked(f"{name}-e"),
    }
    for what, one in whole.items():
        made.append(Case(f"half-closed after {what}", (one,), ((204,),), half_closes=True))
    three = tuple(good(f"{name}-f{number}") for number in range(3))
    made.append(Case("half-closed after three requests", three, ((204, 204, 204),), half_closes=True))
    for what, one in {
        "lines": good_lines(f"{name}-g"),
        "a file": good_file(f"{name}-h"),
        "a large file": good_file(f"{name}-i", 700_000),
        "chunks": _chunked(f"{name}-j"),
    }.items():
        cut = Sent(one.data[:-6], one.stream, one.contents, may_be_taken=False)
        made.append(Case(f"half-closed within {what}", (cut,), GONE, half_closes=True))
    in_head = Sent(good(f"{name}-k").data[:40], may_be_taken=False)
    return [*made, Case("half-closed within a head", (in_head,), GONE, half_closes=True)]


def _chunked(name: str) -> Sent:
    contents = lines(name)
    body = in_chunks(b"\n".join(contents))
    return Sent(head("/usage", f"Content-Type: {NDJSON}", "Transfer-Encoding: chunked") + body, contents=contents)


# --- pipelined -----------------------------------------------------------------------------------------------------


def pipelined(name: str) -> list[Case]:
    """Many requests without waiting for an answer, among them ones that are refused and ones that are no HTTP."""
    many = tuple(good(f"{name}-m{number}") for number in range(200))
    makers = (good, good_lines, good_file, _chunked)
    mixed = tuple(makers[number % len(makers)](f"{name}-x{number}") for number in range(20))
    with_bad = (good(f"{name}-s"), good_lines(f"{name}-t"), bad_json(f"{name}-u"), good_file(f"{name}-v"), good(f"{name}-w"))
    before = tuple(good(f"{name}-y{number}") for number in range(3))
    garbage = Sent(b"GARBAGE\r\n\r\n", may_be_taken=False)
    never = Sent(good(f"{name}-z").data, contents=good(f"{name}-z").contents, may_be_taken=False)
    # How many of the requests before it were taken is chance; after it nothing is.
    broken = tuple((*[204] * count, 400) for count in range(4))
    return [
        Case("many in a row", many, ((204,) * len(many),), stays_open=True),
        Case("all kinds in a row", mixed, ((204,) * len(mixed),), stays_open=True),
        Case("a bad report in the middle", with_bad, ((204, 204, 400, 204, 204),), stays_open=True),
        Case("garbage in the middle", (*before, garbage, never), broken),
    ]


# --- chunks, and requests that two servers would read differently ---------------------------------------------------

# Each is a body in chunks whose lines are good ones, followed by what may never be read as a request of its own.
_BROKEN_BODIES: dict[str, bytes] = {
    "a size too small": b"3\r\n%b\r\n0\r\n\r\n",
    "a size too large": b"ffff\r\n%b\r\n0\r\n\r\n",
    "no size": b"\r\n%b\r\n0\r\n\r\n",
    "a size that is none": b"xyz\r\n%b\r\n0\r\n\r\n",
    "a negative size": b"-5\r\n%b\r\n0\r\n\r\n",
    "a size with a sign": b"+%x\r\n%b\r\n0\r\n\r\n",
    "a size with 0x": b"0x%x\r\n%b\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1%017x\r\n%b\r\n0\r\n\r\n",
    "a size of bare LF": b"%x\n%b\r\n0\r\n\r\n",
    "a size of bare CR": b"%x\r%b\r\n0\r\n\r\n",
    "an end of bare LF": b"%x\r\n%b\n0\n\n",
    "no end of a chunk": b"%x\r\n%b0\r\n\r\n",
    "an extension without end": b"%x;" + b"x" * 100_000 + b"\r\n%b\r\n0\r\n\r\n",
    "zeros without end": b"0" * 100_000 + b"%x\r\n%b\r\n0\r\n\r\n",
    "a NUL in an extension": b"%x;a=\0\r\n%b\r\n0\r\n\r\n",
    "an LF in an extension": b"%x;a\n%b\r\n0\r\n\r\n",
    "a length in a trailer": b"%x\r\n%b\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a trailer that is none": b"%x\r\n%b\r\n0\r\nno colon\r\n\r\n",
}
_FINE_BODIES: dict[str, bytes] = {
    "extensions": b"%x;name=value;other\r\n%b\r\n0;last\r\n\r\n",
    "a quoted extension": b'%x;a="b c"\r\n%b\r\n0\r\n\r\n',
    "zeros before the size": b"0000000%x\r\n%b\r\n000\r\n\r\n",
    "trailers": b"%x\r\n%b\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n",
}
_AMBIGUOUS_FIELDS: dict[str, tuple[str, ...]] = {
    "length, then chunked": ("Content-Length: {length}", "Transfer-Encoding: chunked"),
    "chunked, then length": ("Transfer-Encoding: chunked", "Content-Length: {length}"),
    "two lengths": ("Content-Length: {length}", "Content-Length: 5"),
    "two equal lengths": ("Content-Length: {length}", "Content-Length: {length}"),
    "a list of lengths": ("Content-Length: {length}, {length}",),
    "a length with a sign": ("Content-Length: +{length}",),
    "a length with an underscore": ("Content-Length: 1_0",),
    "a length in hex": ("Content-Length: 0x{length}",),
    "a length beyond 64 bits": ("Content-Length: 18446744073709551617",),
    "a space before the colon": ("Transfer-Encoding : chunked",),
    "chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "chunked in two fields": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked is not last": ("Transfer-Encoding: chunked, gzip",),
    "an unknown coding": ("Transfer-Encoding: xchunked", "Content-Length: {length}"),
    "a tab in the coding": ("Transfer-Encoding: \x0bchunked",),
    "a folded field": ("X-Folded: a", " Transfer-Encoding: chunked", "Content-Length: {length}"),
    "a folded coding": ("Transfer-Encoding:", " chunked"),
    "a bare CR in a field": ("X-Bare: a\rTransfer-Encoding: chunked", "Content-Length: {length}"),
    "a bare LF in a field": ("X-Bare: a\nTransfer-Encoding: chunked", "Content-Length: {length}"),
    "a NUL in a name": ("X\0Y: a", "Content-Length: {length}"),
}


def chunked(name: str) -> list[Case]:
    """Chunks of wrong and of right sizes, and heads that say twice where the body ends."""
    made = []
    for number, (what, form) in enumerate(_BROKEN_BODIES.items()):
        contents = lines(f"{name}-b{number}")
        hidden = good(f"{name}-h{number}")
        data = head("/usage", f"Content-Type: {NDJSON}", "Transfer-Encoding: chunked") + _filled(form, contents)
        # Some never end, which the timeout tells.
        made.append(Case(what, (_no(data, *contents), _no(hidden.data, *hidden.contents)), ((400,), (408,))))
    for number, (what, form) in enumerate(_FINE_BODIES.items()):
        contents = lines(f"{name}-f{number}")
        data = head("/usage", f"Content-Type: {NDJSON}", "Transfer-Encoding: chunked") + _filled(form, contents)
        made.append(Case(what, (Sent(data, contents=contents),), ((204,),), stays_open=True))
    for number, (what, fields) in enumerate(_AMBIGUOUS_FIELDS.items()):
        body, hidden = report(f"{name}-a{number}"), good(f"{name}-i{number}")
        # One that counts takes the hidden request for the body, one that reads chunks takes it for the next request.
        inner = b"0\r\n\r\n" + hidden.data
        data = head("/usage", *[field.format(length=len(inner)) for field in fields]) + inner
        made.append(Case(what, (_no(data, body), _no(b"", *hidden.contents)), ((400,),)))
        # And as a body that is a report to one that counts.
        plain = report(f"{name}-p{number}")
        data = head("/usage", *[field.format(length=len(plain)) for field in fields]) + plain
        made.append(Case(f"{what}, and a report", (_no(data, plain),), ((400,),)))
    return made


def _filled(form: bytes, contents: tuple[bytes, ...]) -> bytes:
    body = b"\n".join(contents)
    return form % ((len(body), body) if form.count(b"%") == 2 else (body,))


def _no(data: bytes, *contents: bytes) -> Sent:
    return Sent(data, contents=contents, may_be_taken=False)


# --- heads ---------------------------------------------------------------------------------------------------------


def heads(name: str) -> list[Case]:
    """Heads at their limits and beyond them."""
    body = report(f"{name}-0")
    fields = [f"X-{number}: {'v' * 20}" for number in range(100)]
    allowed = Sent(put("/usage", body, "X-Large: " + "x" * 30_000, *fields), contents=(body,))
    made = [Case("a large head", (allowed,), ((204,),), stays_open=True)]
    beyond = {
        "a huge field": put("/usage", report(f"{name}-1"), "X: " + "x" * 100_000),
        "a huge name": put("/usage", report(f"{name}-1"), "x" * 100_000 + ": x"),
        "a huge request line": put(f"/usage?{'x' * 200_000}", report(f"{name}-1")),
        "many fields": put("/usage", report(f"{name}-1"), *[f"X-{number}: v" for number in range(5000)]),
        "a huge method": b"P" * 100_000 + b" /usage HTTP/1.1\r\n\r\n",
        "a field before the line": b"Host: gateway\r\nPUT /usage HTTP/1.1\r\n\r\n",
        "no host": b"PUT /usage HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    }
    beyond |= {
        "no version": b"PUT /usage\r\n\r\n",
        "no version, and a bare LF": b"PUT /usage\n",
        "another protocol": put("/usage", report(f"{name}-1")).replace(b"HTTP/1.1", b"RTSP/1.0"),
        **{
            f"the host {host}": put("/usage", report(f"{name}-1")).replace(b"Host: gateway", f"Host: {host}".encode())
            for host in ("a,b", "u@a", "a:99999999")
        },
    }
    made += [Case(what, (_no(data),), ((400,),)) for what, data in beyond.items()]
    for field in ("Authorization: Bearer root", "USER_TOKEN: root"):
        two = put("/usage", report(f"{name}-1"), field)
        made.append(Case(f"two users, {field}", (_no(two),), ((400,),), stays_open=True))
    for version in ("HTTP/0.9", "HTTP/2.0", "HTTP/9.9"):
        data = put("/usage", report(f"{name}-1")).replace(b"HTTP/1.1", version.encode())
        made.append(Case(version, (_no(data),), ((505,),)))
    made.append(Case("an unknown method", (_no(head("/usage", method="STORE")),), ((501,),)))
    packed = head("/usage", "Transfer-Encoding: gzip, chunked") + in_chunks(report(f"{name}-1"))
    made.append(Case("a packed transfer", (_no(packed),), ((501,),)))
    expecting = put("/usage", report(f"{name}-1"), "Expect: wonders")
    made.append(Case("an expectation", (_no(expecting),), ((417,),), stays_open=True))
    made.append(Case("no user", (_no(put("/usage", b"1").replace(b"USER_TOKEN", b"X-NONE")),), ((401,),), stays_open=True))
    made.append(Case("no path", (_no(put("/nothing", b"1")),), ((404,),), stays_open=True))
    made.append(Case("no method", (_no(head("/usage", method="DELETE")),), ((405,),), stays_open=True))
    return made


def heads_and_floods(site: Site) -> Outcome:
    """The row of heads."""
    outcome = Outcome()
    with attacked(site, outcome, "cases", limits=LIMITS) as bench:
        bench.run([case for number in range(site.of(ROUNDS)) for case in heads(f"r{number}")])
        flood(bench)
    return outcome
