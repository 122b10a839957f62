"""The benchmark's own load generator, against a server that notes what it reads and stalls on purpose."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.cores import every_core
from benchmarks.generator import ONE_WRITE, Paced, compiled, parse
from benchmarks.settings import Wrong

BODY = b'{"a":1}'
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
STALL_S = 0.4

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator, compiled."""
    return compiled(tmp_path_factory.mktemp("generator"))


@contextmanager
def serving(answer: Callable[[int], bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server of one connection: `answer` is asked with the number of the request; what each read gave is noted."""
    reads: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            whole, number = b"", 0
            while piece := connection.recv(65536):
                reads.append(piece)
                whole += piece
                if whole.endswith(BODY):
                    connection.sendall(answer(number))
                    whole, number = b"", number + 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/usage", reads
        thread.join(10.0)
        assert not thread.is_alive()


def paced(program: Path, gap_us: int = ONE_WRITE, rate: float = 0.0) -> Paced:
    """The generator on one connection."""
    return Paced(program, BODY, every_core(), 1, gap_us, rate)


def test_one_write(program: Path) -> None:
    """Head and body come together, and every request that was answered is counted once."""
    with serving(lambda _: NO_CONTENT) as (url, reads):
        load = paced(program).put(url, 0.2)
    assert load.requests == len(reads)
    assert all(read.startswith(b"PUT /usage HTTP/1.1\r\n") and read.endswith(b"\r\n\r\n" + BODY) for read in reads)


def test_two_writes_apart(program: Path) -> None:
    """The head comes alone, and the body no sooner than the gap."""
    with serving(lambda _: NO_CONTENT) as (url, reads):
        load = paced(program, gap_us=20_000).put(url, 0.2)
    assert [read == BODY for read in reads] == [False, True] * load.requests
    assert load.p50_ms >= 20.0


def test_a_fixed_rate_is_kept(program: Path) -> None:
    """As many requests are sent as the rate asks for, not as many as would be answered, and none before it is due."""
    with serving(lambda _: NO_CONTENT) as (url, _):
        load = paced(program, rate=200.0).put(url, 0.5)
    assert load.requests == 100
    # The last one is due a 200th of a second before the end.
    assert load.per_s <= 100 / 0.495


def test_a_stall_counts_against_all_that_it_held_up(program: Path) -> None:
    """Requests that were due while the server stalled have latencies from when they were due: no omission."""

    def stall_once(number: int) -> bytes:
        if number == 10:
            time.sleep(STALL_S)
        return NO_CONTENT

    with serving(stall_once) as (url, _):
        load = paced(program, rate=100.0).put(url, 1.0)
        # Two fifths of the second are the stall: the middle of them waited for half of it.
    assert load.requests == 100
    assert load.p99_ms >= STALL_S * 900
    latencies = array("I")
    latencies.frombytes(program.with_name("latencies").read_bytes())
    assert sum(latency >= STALL_S * 0.5e6 for latency in latencies) >= 15


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
def test_a_refusal_gives_no_figure(answer: bytes, program: Path) -> None:
    """Any answer but a success makes the load wrong."""
    with serving(lambda _: answer) as (url, _), pytest.raises(Wrong, match="did not answer every request"):
        paced(program).put(url, 0.1)


def test_a_body_in_the_answer_is_read(program: Path) -> None:
    """An answer is whole with its body, also where it comes in pieces."""
    with serving(lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello") as (url, reads):
        load = paced(program).put(url, 0.1)
    assert load.requests == len(reads) > 1


@pytest.mark.parametrize("bad", ["refused", "broken", "unanswered"])
def test_failures_are_read(bad: str) -> None:
    """A load in which anything failed is no load."""
    counted = {"requests": 1, "seconds": 1.0, "refused": 0, "broken": 0, "unanswered": 0}
    text = str(counted | {bad: 1}).replace("'", '"')
    with pytest.raises(Wrong, match=bad):
        parse(text, array("I", [5]).tobytes(), "url")
    assert parse(str(counted).replace("'", '"'), array("I", [5000]).tobytes(), "url").p50_ms == 5.0
