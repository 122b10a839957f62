"""Rows of clients whose bodies are not what they seem: bombs, and JSON that is hard to read or none."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import cache

from backports import zstd

from reliability.hostile.bench import MIB, attacked
from reliability.hostile.cases import NDJSON, Case, Sent, good, head, in_chunks, lines, put, report
from reliability.hostile.wire import LIMITS
from reliability.row import Outcome, Site

LIMIT = 8 * MIB
"""Of what a body may be once decoded; the memory of the gateway may grow by no more than that times a few."""
BOMB_BYTES = 128 * MIB
ALLOWANCE = 96 * MIB
ROUNDS = 6
LARGE = 400_000
"""Above the limit of segments: such a body has a file of its own, and goes another way."""

Coder = Callable[[bytes], bytes]


def _deflate(data: bytes) -> bytes:
    return zlib.compress(data)


CODERS: dict[str, Coder] = {"gzip": gzip.compress, "deflate": _deflate, "zstd": zstd.compress}


@cache
def bomb(coding: str) -> bytes:
    """A body that decodes to `BOMB_BYTES` of blanks, made without ever holding that much."""
    blanks = b" " * MIB
    if coding == "zstd":
        compressor = zstd.ZstdCompressor()
        return b"".join([*(compressor.compress(blanks) for _ in range(BOMB_BYTES // MIB)), compressor.flush()])
    deflater = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | (16 if coding == "gzip" else 0))
    return b"".join([*(deflater.compress(blanks) for _ in range(BOMB_BYTES // MIB)), deflater.flush()])


@cache
def _nested() -> bytes:
    return gzip.compress(bomb("gzip"))


# --- bombs ---------------------------------------------------------------------------------------------------------


def _targets(name: str) -> tuple[tuple[str, str, str], ...]:
    return (("usage", "/usage", NDJSON), ("error", "/error", ""), ("specimen", f"/specimen?uri=file:///{name}", ""))


def bombs(name: str) -> list[Case]:
    """Bodies that decode to far more than is allowed, for every stream, and ones that are cut short or go on too long."""
    made = []
    for stream, path, content_type in _targets(name):
        claimed = [f"Content-Type: {content_type}"] if content_type else []
        for coding, code in CODERS.items():
            coded, body = f"Content-Encoding: {coding}", report(f"{name}-{stream}-{coding}")
            packed = code(body)
            refused: dict[str, tuple[bytes, int]] = {
                "bomb": (bomb(coding), 413),
                "cut short": (packed[:-3], 400),
                "garbage behind it": (packed + b"GARBAGE GARBAGE", 400),
                "a report, then a bomb": (code(body) + bomb(coding), 400 if coding == "deflate" else 413),
                "no such coding at all": (body, 400),
            }
            for what, (data, status) in refused.items():
                # A body that may not be there under any of its names: each try has contents of its own.
                request = put(path, data, coded, *claimed)
                made.append(Case(f"{coding} {what} to {stream}", (_no(request, stream),), ((status,),)))
            made.append(Case(f"{coding} to {stream}", (Sent(put(path, packed, coded, *claimed), stream, (body,)),), ((204,),)))
        nested = _nested()
        made.append(_refused("a bomb in gzip", put(path, nested, "Content-Encoding: gzip, gzip", *claimed), stream, 413))
        thrice = put(path, gzip.compress(nested), "Content-Encoding: gzip, gzip, gzip", *claimed)
        made.append(_refused("three codings", thrice, stream, 415))
        made.append(_refused("brotli", put(path, b"\x0b\x02\x80{}\x03", "Content-Encoding: br", *claimed), stream, 415))
        whole = head(path, "Transfer-Encoding: chunked", "Content-Encoding: zstd", *claimed)
        made.append(_refused("a bomb in chunks", whole + in_chunks(bomb("zstd"), 4096), stream, 413))
        plain = head(path, "Transfer-Encoding: chunked", *claimed) + in_chunks(b" " * (LIMIT + MIB), MIB)
        made.append(_refused("more than is allowed in chunks", plain, stream, 413))
        made.append(_refused("a length of terabytes", head(path, "Content-Length: 99999999999999", *claimed), stream, 413))
    return [_as_it_ends(case) for case in made]


def _refused(what: str, data: bytes, stream: str, status: int) -> Case:
    return Case(f"{what} to {stream}", (_no(data, stream),), ((status,),))


def _no(data: bytes, stream: str = "usage", *contents: bytes) -> Sent:
    return Sent(data, stream, contents, may_be_taken=False)


def _as_it_ends(case: Case) -> Case:
    """After 413 the connection is closed; after every other answer it can be used, which is tried."""
    stays_open = case.answers[0][0] in {204, 400, 415}
    return Case(case.name, case.sent, case.answers, stays_open=stays_open)


def run_bombs(site: Site) -> Outcome:
    """The row of bombs."""
    outcome = Outcome()
    limits = {**LIMITS, "report_bytes": LIMIT, "specimen_bytes": LIMIT}
    with attacked(site, outcome, "bombs", allowance=ALLOWANCE, limits=limits) as bench:
        bench.run([case for number in range(site.of(ROUNDS)) for case in bombs(f"r{number}")])
    return outcome


# --- JSON ----------------------------------------------------------------------------------------------------------


def _with(name: str, value: bytes) -> bytes:
    return b'{"id":"%s","value":%s}' % (name.encode(), value)


ALLOWED_VALUES: dict[str, bytes] = {
    "depth": b"[" * 998 + b"]" * 998,
    "a lone surrogate": b'"\\ud800"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "an escaped NUL": b'"\\u0000"',
    "a huge number": b"9" * 5000,
    "a number beyond all floats": b"-1e99999",
    "a number with a long fraction": b"0." + b"0" * 5000 + b"1",
    "a name that comes twice": b'{"a":1,"a":2,"__proto__":3}',
    "an escaped LF": b'"\\n\\r\\u2028"',
}
FORBIDDEN_VALUES: dict[str, bytes] = {
    "too much depth": b"[" * 1001 + b"]" * 1001,
    "depth without an end": b"[" * 100_000,
    "depth of objects": b'{"a":' * 50_000,
    "a NUL": b'"\0"',
    "a raw surrogate": b'"\xed\xa0\x80"',
    "bytes that are no UTF-8": b'"\xff\xfe"',
    "an overlong form": b'"\xc0\xaf"',
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a number that is none": b"01",
    "an endless number": b"1e" + b"9" * 5000 + b"x",
    "a bad escape": b'"\\x00"',
    "half a surrogate": b'"\\ud8"',
    "a comma too many": b"[1,]",
    "two documents": b"1}{",
}


def documents(name: str) -> list[Case]:
    """Documents hard to read, small and large, whole and in chunks; and NDJSON with a bad line in the middle."""
    made = []
    for large in (False, True):
        padding = b" " * LARGE if large else b""
        for number, value in enumerate(ALLOWED_VALUES.values()):
            unique = f"{name}-a{large}{number}"
            made.append(_document(list(ALLOWED_VALUES)[number], unique, value + padding, 204, in_one=not large))
        for number, value in enumerate(FORBIDDEN_VALUES.values()):
            unique = f"{name}-f{large}{number}"
            made.append(_document(list(FORBIDDEN_VALUES)[number], unique, value + padding, 400, in_one=large))
        for number, value in enumerate(FORBIDDEN_VALUES.values()):
            made += _with_bad_line(f"{name}-n{large}{number}", list(FORBIDDEN_VALUES)[number], value, 4000 if large else 5)
    return made


def _document(what: str, name: str, value: bytes, status: int, *, in_one: bool) -> Case:
    contents = _with(name, value)
    data = put("/usage", contents) if in_one else head("/usage", "Transfer-Encoding: chunked") + in_chunks(contents, 50_000)
    return Case(what, (Sent(data, contents=(contents,)), good(f"{name}-next")), ((status, 204),), stays_open=True)


def _with_bad_line(name: str, what: str, value: bytes, count: int) -> list[Case]:
    before, after = lines(f"{name}-b", count), lines(f"{name}-c", count)
    # Without an LF within it, or it would be two lines.
    body = b"\n".join([*before, _with(f"{name}-bad", value), *after])
    fields = [f"Content-Type: {NDJSON}"]
    bad = (*before, *after)
    made = [Case(f"{what} in the middle", (_no(put("/usage", body, *fields), "usage", *bad),), ((400,),), stays_open=True)]
    if count < 100:
        again = lines(f"{name}-d", count)
        packed = gzip.compress(b"\n".join([*again, _with(f"{name}-bad2", value)]))
        request = put("/usage", packed, *fields, "Content-Encoding: gzip")
        made.append(Case(f"{what} at the end, packed", (_no(request, "usage", *again),), ((400,),), stays_open=True))
    return made


def run_json(site: Site) -> Outcome:
    """The row of JSON."""
    outcome = Outcome()
    with attacked(site, outcome, "documents", limits=LIMITS) as bench:
        bench.run([case for number in range(site.of(ROUNDS)) for case in documents(f"r{number}")])
    return outcome
