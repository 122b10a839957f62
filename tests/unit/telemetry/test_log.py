"""The log: what happened is in it, in one line each, and nothing that reads it or sends to it can hurt the gateway."""

from __future__ import annotations

import ast
import contextlib
import datetime as dt
import fcntl
import itertools
import logging
import os
import pathlib
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.telemetry import log as log_room
from gateway.telemetry.log import FORMATS, Log
from gateway.telemetry.log_values import json_value, text_value
from gateway.telemetry.stdlib_bridge import KEPT_MESSAGES, LibraryMessages
from testkit.log import WAIT_S, Pipe

every_format = pytest.mark.parametrize("form", FORMATS)
# Everything a str can hold, lone surrogates included, which is what a header that is not UTF-8 becomes.
nasty = st.sampled_from('\n\r\t\0\x1b\x7f\u2028\u202e\udc80 "=\\-')
any_text = st.lists(nasty | st.characters(exclude_categories=()), max_size=20).map("".join)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note what os.write is called with."""
    seen: list[bytes] = []
    write = os.write

    def spy(fd: int, data: bytes) -> int:
        seen.append(bytes(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", spy)
    return seen


def test_text_is_aligned() -> None:
    """A text line has the time, the level and the event in columns, then the fields."""
    pipe = Pipe()
    pipe.log.info("object delivered", key="a/b.gz", took_s=0.12345, again=True, none=None, of=["x", 1])
    pipe.log.warning("delivery failed", error=OSError(5, "no luck"))
    pipe.access(1024)
    sent, failed, done = pipe.end()
    assert sent.decode() == (
        '2026-11-21T12:00:00.125Z info    object delivered       key=a/b.gz took_s=0.123 again=true none=- of="[\\"x\\",1]"'
    )
    assert failed == b'2026-11-21T12:00:00.125Z warning delivery failed        error="OSError: [Errno 5] no luck"'
    assert done.decode() == (
        "2026-11-21T12:00:00.125Z info    request done           method=PUT path=/usage user=machine-1 ip=192.0.2.7 "
        f"status=204 duration_ms=1.2 received_bytes=1024 request_id={'a' * 32}"
    )


def test_json_is_one_object_a_line() -> None:
    """A JSON line is an object with time, level and event first, then the fields in their types."""
    pipe = Pipe(form="json")
    pipe.log.info("listening")
    pipe.log.error("delivery failed", count=3, path=pathlib.Path("/tmp"), at=[1, {"b": None}])
    pipe.log.access('/"', 404, [(("GET", '/"', None, None), 0.5, 0, "r")], code="not_found", reason='no "/"')
    lines = pipe.end()
    assert lines[0] == b'{"time":"2026-11-21T12:00:00.125Z","level":"info","event":"listening"}'
    start = {"time": "2026-11-21T12:00:00.125Z"}
    assert [orjson.loads(line) for line in lines[1:]] == [
        {**start, "level": "error", "event": "delivery failed", "count": 3, "path": "/tmp", "at": [1, {"b": None}]},
        {**start, "level": "info", "event": "request failed", "method": "GET", "path": '/"', "user": None, "ip": None}
        | {"status": 404, "code": "not_found", "reason": 'no "/"', "duration_ms": 500.0, "received_bytes": 0, "request_id": "r"},
    ]


@given(user=any_text, path=any_text, request_id=any_text, value=any_text)
@every_format
def test_injection(form: str, user: str, path: str, request_id: str, value: str) -> None:
    """Whatever a client calls itself, its line is one printable line of UTF-8 that says who it was."""
    pipe = Pipe(form=form)
    pipe.log.access(path, 204, [(("PUT", path, user, "::1"), 0.1, 1, request_id)])
    pipe.log.info("quarantined", name=value)
    lines = [line.decode() for line in pipe.end()]
    assert len(lines) == 2
    if form == "json":
        assert orjson.loads(lines[0])["status"] == 204
        assert orjson.loads(lines[1])["name"] == value.encode(errors="backslashreplace").decode()
    else:
        assert all(map(str.isprintable, lines))
        assert f" path={text_value(path)} user={text_value(user)} ip=::1 status=204 " in lines[0]


@every_format
def test_long_texts_of_clients_are_cut(form: str) -> None:
    """A path and a user are logged up to 256 characters, then with their length, and do not stay in memory."""
    pipe = Pipe(form=form)
    for size in (256, 257, 60_000):
        pipe.log.access("/" + "p" * size, 404, [(("PUT", "/" + "p" * (size - 1), "日" * size, "::1"), 0.1, 1, "a")])
    exact, one_more, long = [line.decode() for line in pipe.end()]
    assert "p" * 255 in exact
    assert "日" * 256 in exact
    assert "…" not in exact
    for line, size in ((one_more, 257), (long, 60_000)):
        assert f"{'p' * 255}… ({size} characters)" in line
        assert f"{'日' * 256}… ({size} characters)" in line
        assert len(line) < 1000
    assert pipe.log._known == {}


@given(value=any_text)
@example("")
@example("-")
def test_text_values_are_unambiguous(value: str) -> None:
    """A bare value holds nothing that ends or fakes a field, and a quoted one can be read back exactly."""
    told = text_value(value)
    if told.startswith('"'):
        assert ast.literal_eval(told) == value
    else:
        assert told == value
        assert told not in ("", "-")
        assert not set(told) & set(' "=\\')


ODD: list[object] = [
    *("\udc80", 1 << 70, -(1 << 70), float("nan"), b"\xff", {1: "\udc80"}, {"\udc80": {3}}, {1}, ("a", True)),
    *([1, ["\ud800", None, 0.5]], ValueError("\udc80\n"), object(), dt.timedelta(1)),
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: "an object" if type(value) is object else ascii(value))
def test_odd_values(value: object) -> None:
    """A value that JSON has no form for is told all the same, in one line of either format."""
    orjson.loads(json_value({"field": value}))
    assert "\n" not in json_value(value)
    assert text_value(value).isprintable()


def test_levels() -> None:
    """Events below the configured level are left out, access lines too."""
    told = {}
    for level in ("debug", "info", "warning", "error"):
        pipe = Pipe(level)
        pipe.log.event("debug", "listening", {})
        for method in ("info", "warning", "error"):
            getattr(pipe.log, method)("listening")
        for status in (204, 404, 500):
            pipe.access(status=status)
        told[level] = len(pipe.end())
    assert told == {"debug": 7, "info": 6, "warning": 3, "error": 1}
    with pytest.raises(ValueError, match="xml"):
        Log("info", "xml")


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (204, "info    request done"),
        (399, "info    request done"),
        (400, "info    request failed"),
        (499, "info    request failed"),
        (500, "warning request failed"),
        (507, "warning request failed"),
    ],
)
def test_outcomes(status: int, head: str) -> None:
    """A request is done below 400 and failed from there on, at warning from 500 on."""
    pipe = Pipe()
    pipe.access(status=status)
    assert f"Z {head} " in pipe.end()[0].decode()


@pytest.mark.parametrize(
    ("status", "level"), [(404, b"info"), (501, b"info"), (505, b"info"), (500, b"warning"), (503, b"warning")]
)
def test_what_clients_do_wrong_is_no_warning(status: int, level: bytes) -> None:
    """A method or a version that is not spoken is told as what it is: something that a client did."""
    pipe = Pipe()
    pipe.access(status=status)
    assert [line.split()[1] for line in pipe.end()] == [level]


def test_probes_that_succeed_are_no_news() -> None:
    """What machines ask every few seconds is told at debug, and as any request where it fails."""
    told = {}
    for level in ("debug", "info"):
        pipe = Pipe(level)
        for status in (200, 503):
            request = (("GET", "/health", None, "192.0.2.7"), 0.001, 0, "a" * 32)
            pipe.log.access("/health", status, [request], is_probe=True)
        told[level] = [line.split()[1] for line in pipe.end()]
    assert told == {"debug": [b"debug", b"warning"], "info": [b"warning"]}


def test_events_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is no access line does not wait for company."""
    monkeypatch.setattr(log_room, "_ACCESS_DELAY_S", 3600.0)
    pipe = Pipe()
    for _ in range(3):
        pipe.log.info("listening")
        assert len(pipe.lines(1)) == 1
    pipe.end()


def test_access_lines_are_batched(calls: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Access lines wait for company and leave in one write; any other event takes them along at once, in order."""
    monkeypatch.setattr(log_room, "_ACCESS_DELAY_S", 3600.0)
    pipe = Pipe()
    for number in range(100):
        pipe.access(number)
    assert not select.select([pipe.reader], [], [], 0.05)[0]
    pipe.log.info("listening")
    lines = pipe.lines(101)
    assert [b"received_bytes=%d " % number in line for number, line in enumerate(lines[:100])] == [True] * 100
    assert len(calls) == 1
    assert pipe.end() == []


def test_access_lines_wait_only_a_moment() -> None:
    """Access lines come out although nothing follows them, again and again."""
    pipe = Pipe()
    for number in range(3):
        pipe.access(number)
        assert b"received_bytes=%d " % number in pipe.lines(1)[0]
    assert log_room._ACCESS_DELAY_S <= 0.1
    pipe.end()


@pytest.mark.parametrize("blocking", [True, False])
@every_format
def test_blocked_reader(form: str, blocking: bool) -> None:
    """While nobody reads STDERR no caller waits; the lines that did not fit are counted where they are missing."""
    pipe = Pipe(form=form, max_buffered_bytes=200_000)
    os.set_blocking(pipe.writer, blocking)
    for number in range(5000):
        pipe.access(number)
    pipe.log.error("delivery failed", kept=True)
    lines = pipe.end()
    told = [line for line in lines if b"request done" in line]
    numbers = [int(line.split(b"received_bytes")[1].strip(b'=":').split(b" ")[0].split(b",")[0]) for line in told]
    counts = [int(line.rstrip(b"}").split(b"count")[1].strip(b'":=')) for line in lines if b"log lines dropped" in line]
    assert 100 < len(numbers) < 3000
    assert numbers == sorted(set(numbers))
    assert sum(counts) == 5000 - len(numbers)
    assert b"kept" in lines[-1], "access lines leave room for other events"
    assert b"log lines dropped" in lines[-2]
    gaps = [after - before - 1 for before, after in itertools.pairwise([*numbers, 5000]) if after > before + 1]
    assert len(counts) == len(gaps)


def test_a_blocked_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A STDERR that takes nothing now is not asked again and again."""
    pipe = Pipe()
    os.set_blocking(pipe.writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe.writer, b"full\n"):
            pass
    refused: list[None] = []
    write = os.write

    def spy(fd: int, data: bytes) -> int:
        try:
            return write(fd, data)
        except BlockingIOError:
            refused.append(None)
            raise

    monkeypatch.setattr(os, "write", spy)
    pipe.log.error("delivery failed")
    end = time.monotonic() + WAIT_S
    while not refused and time.monotonic() < end:
        time.sleep(0.001)
    # Long for a loop that does not wait, which would ask some thousand times.
    time.sleep(0.05)
    assert len(refused) == 1
    assert b"delivery failed" in pipe.end()[-1]


def test_lines_flow_after_a_block() -> None:
    """When a blocked STDERR is read again the count comes and later lines follow it."""
    pipe = Pipe(max_buffered_bytes=100_000)
    for number in range(3000):
        pipe.access(number)
    seen: list[bytes] = []
    while not any(b"log lines dropped" in line for line in seen):
        seen += pipe.lines(1)
    pipe.access(123456)
    assert b"123456" in pipe.end()[-1]


def test_close_is_bounded() -> None:
    """Closing gives up when STDERR stays blocked, says so, and discards what comes later."""
    pipe = Pipe()
    for number in range(5000):
        pipe.access(number)
    assert not pipe.log.close(0.05)
    pipe.access(123456)
    assert not any(b"123456" in line for line in pipe.end())


def test_close_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing writes what is waiting without waiting for more."""
    monkeypatch.setattr(log_room, "_ACCESS_DELAY_S", 3600.0)
    pipe = Pipe()
    for number in range(10_000):
        pipe.access(number)
    assert len(pipe.end()) == 10_000
    assert pipe.log.close()


def test_reader_gone() -> None:
    """A closed pipe at the other end stops neither the callers nor the log."""
    pipe = Pipe()
    os.close(pipe.reader)
    for number in range(3):
        pipe.log.info("listening", number=number)
    assert not pipe.log.close(WAIT_S)
    assert not pipe.log._thread.is_alive()
    os.close(pipe.writer)


def test_disk_full_and_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a disk was full in mid-line the log goes on in a new line and counts what is missing."""
    pipe, begun, failed, write = Pipe(), threading.Event(), threading.Event(), os.write

    def fail(fd: int, data: bytes) -> int:
        if not begun.is_set():
            begun.set()
            return write(fd, data[:10])
        failed.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    pipe.log.info("listening", number=1)
    assert failed.wait(WAIT_S)
    monkeypatch.setattr(os, "write", write)
    pipe.log.info("listening", number=2)
    torn, whole, notice = pipe.end()
    assert torn == b"2026-11-21"
    assert whole.endswith(b"number=2")
    assert notice.endswith(b"log lines dropped      count=1")


def test_closed_stderr(tmp_path: pathlib.Path) -> None:
    """A log whose descriptor is closed at the start never writes into a file that gets its number later."""
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    log = Log(fd=spare).start()
    data = os.open(tmp_path / "data", os.O_WRONLY | os.O_CREAT)
    log.info("listening")
    assert log.close(WAIT_S)
    assert data != spare
    assert os.fstat(data).st_size == 0
    os.close(data)
    os.close(log._fd)


def test_finalizer_may_log() -> None:
    """A finalizer that runs in the middle of logging may log: nothing locks itself out."""
    pipe = Pipe()

    def inside() -> None:
        with pipe.log._lock:
            pipe.log.info("listening")

    thread = threading.Thread(target=inside, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert len(pipe.end()) == 1


def test_threads() -> None:
    """Lines of many threads all arrive, none mixed with another, those of one thread in order."""
    pipe = Pipe()

    def tell(name: int) -> None:
        for number in range(500):
            pipe.log.info("listening", name=name, number=number)
            pipe.access(number)

    threads = [threading.Thread(target=tell, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    lines = pipe.lines(100)
    for thread in threads:
        thread.join(WAIT_S)
    lines += pipe.end()
    told = [line.split()[3:] for line in lines if b" listening " in line]
    for name in range(4):
        assert [n for who, n in told if who == b"name=%d" % name] == [b"number=%d" % n for n in range(500)]


@contextlib.contextmanager
def library_messages() -> Iterator[list[str]]:
    """Give the root logger to a log; its lines, without their time, are in the list when the block ends."""
    root, pipe, lines = logging.root, Pipe(), list[str]()
    before, level = root.handlers[:], root.level
    try:
        LibraryMessages(pipe.log).install()
        yield lines
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(level)
        lines += [line.decode()[25:] for line in pipe.end()]


def test_library_messages() -> None:
    """What a library says from warning on is told in one line, with its exception and where that came from."""
    logger = logging.getLogger("a.library")
    with library_messages() as lines:
        logger.info("chatter")
        logger.warning("slow %s", "pool")
        logger.error("bad %d", "arguments")
        try:
            pathlib.Path("two\nlines").read_text("utf-8")
        except OSError:
            logger.exception("gave up")
    slow, bad, raised = lines
    assert slow == 'warning library message        logger=a.library text="slow pool"'
    assert bad == 'error   library message        logger=a.library text="bad %d"'
    assert 'text="gave up" error="FileNotFoundError: [Errno 2] No such file' in raised
    assert "pathlib" in raised.split(" at=")[1]


def warned(text: str) -> logging.LogRecord:
    """A warning of a library's."""
    return logging.LogRecord("a.library", logging.WARNING, __file__, 1, text, None, None)


def test_what_a_library_repeats_is_told_once_a_minute() -> None:
    """The same words are told once in a minute, with how often they came; other words are told at once."""
    said = [(0.0, "away"), (1.0, "away"), (59.0, "away"), (59.0, "back"), (60.0, "away"), (61.0, "away"), (121.0, "away")]
    pipe = Pipe()
    handler = LibraryMessages(pipe.log, iter([second for second, _ in said]).__next__)
    for _, text in said:
        handler.emit(warned(text))
    told = [line.decode().partition("text=")[2] for line in pipe.end()]
    assert told == ["away", "back", "away count=3", "away count=2"]


def test_what_libraries_say_takes_no_room() -> None:
    """However many different things are said, few are remembered."""
    pipe = Pipe()
    handler = LibraryMessages(pipe.log)
    for number in range(2 * KEPT_MESSAGES):
        handler.emit(warned(f"number {number}"))
    assert len(handler._logged) == KEPT_MESSAGES
    assert len(pipe.end()) == 2 * KEPT_MESSAGES


def test_python_warnings() -> None:
    """A warning of Python's own comes the same way and stays in one line."""
    with warnings.catch_warnings(), library_messages() as lines:
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    (line,) = lines
    assert "logger=py.warnings" in line
    assert "old ways" in line


# --- several processes, one pipe -----------------------------------------------------------------------------------

PROCESSES, LINES = 3, 4000
TELL_MUCH = """\
import sys
from gateway.telemetry.log import Log
log = Log("info", "json", 1, is_shared=True).start()
for number in range(int(sys.argv[2])):
    log.info("library message", process=int(sys.argv[1]), number=number, text="x" * (number % 700))
assert log.close(60)
"""


def test_lines_of_several_processes_are_never_torn() -> None:
    """Processes that write to one pipe, more than it holds, have each of their lines come whole, once and in order."""
    reader, writer = os.pipe()
    # One page: what is larger has to wait in the middle of a write, and others may come between.
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    command = [sys.executable, "-c", TELL_MUCH]
    told = [subprocess.Popen([*command, str(number), str(LINES)], stdout=writer) for number in range(PROCESSES)]
    os.close(writer)
    with open(reader, "rb", buffering=0) as file:
        text = b"".join(iter(lambda: file.read(1 << 16), b""))
    assert [each.wait(WAIT_S) for each in told] == [0] * PROCESSES
    lines = [orjson.loads(line) for line in text.splitlines()]
    for number in range(PROCESSES):
        assert [line["number"] for line in lines if line["process"] == number] == list(range(LINES))


def test_a_shared_log_writes_no_more_than_a_pipe_takes_whole(calls: list[bytes]) -> None:
    """Each write ends with a line and is no larger than a pipe takes at once, but for a line that is larger itself."""
    pipe = Pipe(is_shared=True)
    for number in range(300):
        pipe.log.info("library message", number=number, text="x" * 90)
    pipe.log.info("library message", text="y" * 5000)
    pipe.log.info("library message", text="z")
    lines = pipe.end()
    assert len(lines) == 302
    assert all(call.endswith(b"\n") for call in calls)
    large = [call for call in calls if len(call) > select.PIPE_BUF]
    assert [call.count(b"\n") for call in large] == [1]
    # Not a line at a time either.
    assert len(calls) < 100


def test_a_log_of_one_process_writes_as_much_as_there_is(calls: list[bytes]) -> None:
    """Where nobody else writes, many lines go in one call."""
    pipe = Pipe()
    with pipe.log._lock:
        for number in range(300):
            pipe.log.info("library message", number=number, text="x" * 90)
    assert len(pipe.end()) == 300
    assert max(map(len, calls)) > select.PIPE_BUF
