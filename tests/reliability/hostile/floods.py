"""Clients that never come to an end of a line, a head, a size or a trailer, or never read what they are answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from reliability.hostile.bench import MIB, Bench
from reliability.hostile.cases import Sent, good, head
from reliability.hostile.clients import Wild, answers_in
from testkit.ledger import Fate

FLOOD_BYTES = 96 * MIB
"""More than the gateway may take, so that one which keeps what comes is seen by its memory."""
_BLOCK_BYTES = 1 << 16
_AT_A_TIME = 6
# Far more than the buffers of a connection hold, on both sides, of the requests and of the answers.
_UNREAD = 200_000

_IN_CHUNKS = head("/usage", "Transfer-Encoding: chunked", "Content-Type: application/x-ndjson")
# What is sent first, and what is sent then again and again.
Flood = tuple[bytes, bytes]
FLOODS: dict[str, Flood] = {
    "an endless method": (b"", b"P"),
    "an endless request line": (b"PUT /usage?", b"x"),
    "an endless name": (b"PUT /usage HTTP/1.1\r\n", b"x"),
    "an endless field": (b"PUT /usage HTTP/1.1\r\nHost: g\r\nX: ", b"x"),
    "endless blanks before a field": (b"PUT /usage HTTP/1.1\r\nHost: g\r\nX:", b" "),
    "endless fields": (b"PUT /usage HTTP/1.1\r\nHost: g\r\n", b"X: y\r\n"),
    "endless empty lines": (b"", b"\r\n"),
    "an endless size": (_IN_CHUNKS, b"0"),
    "an endless extension": (_IN_CHUNKS + b"2;", b"x"),
    "endless extensions": (_IN_CHUNKS + b"2", b";x=y"),
    "an endless trailer": (_IN_CHUNKS + b"2\r\n{}\r\n0\r\nX: ", b"x"),
    "endless trailers": (_IN_CHUNKS + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "an endless line": (_IN_CHUNKS, b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "an endless body that nobody wants": (head("/nothing", "Transfer-Encoding: chunked"), b"8\r\nabcdefgh\r\n"),
    "endless garbage behind an error": (b"GARBAGE\r\n\r\n", b"x"),
}
# Refused or, where it is only silence to the gateway, ended without a word.
_RIGHT = frozenset({400, 404, 408, 413})


def flood(bench: Bench) -> None:
    """Send each of them until the gateway closes the connection or has taken a great deal of it; one reads no answers."""
    with ThreadPoolExecutor(_AT_A_TIME) as clients:
        unread = clients.submit(_never_read, bench)
        list(clients.map(lambda what: _flood(bench, what, *FLOODS[what]), FLOODS))
        unread.result()


def _flood(bench: Bench, what: str, first: bytes, again: bytes) -> None:
    bench.tries += 1
    block = again * (_BLOCK_BYTES // len(again))
    with Wild(bench.gateway.port) as wild:
        try:
            is_open = wild.send(first)
            sent = 0
            while is_open and sent < FLOOD_BYTES:
                is_open = wild.send(block)
                sent += len(block)
            wild.half_close()
            heard, _ = answers_in(wild.hear())
        except TimeoutError:
            bench.blame(f"{what}: the connection is neither read nor closed")
            return
    if len(heard) > 1 or not {one.status for one in heard} <= _RIGHT:
        bench.blame(f"{what}: answered {[one.status for one in heard]}")


def _never_read(bench: Bench) -> None:
    """Many reports in a row by a client that reads no answer: once nothing more can be written, nothing more may be read."""
    bench.tries += 1
    with Wild(bench.gateway.port, receive_bytes=4096) as wild:
        wild.socket.settimeout(2.0)
        for number in range(_UNREAD):
            one: Sent = good(f"unread-{number}")
            bench.ledger.note(one.stream, one.contents, Fate.UNANSWERED)
            try:
                if not wild.send(one.data):
                    break
            except TimeoutError:
                bench.outcome.notes.append(f"after {number} reports by a client that reads no answer nothing more was read")
                break
        else:
            bench.blame(f"{_UNREAD} reports were read from a client that reads no answer")
        wild.reset()
