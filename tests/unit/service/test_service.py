"""The service as a whole: how it starts, what it says, and how it stops."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from gateway.service.sockets import _why_not
from testkit.deadlines import since, until
from testkit.running import LocalGateway, head, put, running

SLOW = head("PUT /specimen?uri=slow.bin", "Content-Length: 10", "Expect: 100-continue")


def objects(gateway: LocalGateway, stream: str) -> list[Path]:
    """What was delivered of a stream."""
    return [path for path in (gateway.objects / stream).rglob("*") if path.is_file()]


def lines(gateway: LocalGateway, stream: str = "usage") -> list[bytes]:
    """Every line that was delivered of a stream."""
    return [line for path in sorted(objects(gateway, stream)) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_a_start_is_told(tmp_path: Path) -> None:
    """A start says version, settings unlike the defaults with secrets masked, what recovery found, and the address, in order."""
    settings = {"aws": {"access_key_id": "AKID", "secret_access_key": "hidden-secret"}, "limits": {"body_timeout": "90s"}}
    with running(tmp_path, settings) as gateway:
        events = [line.split('"event":"')[1].split('"')[0] for line in gateway.said().splitlines() if line.startswith("{")]
        assert events == ["gateway starting", "configuration in effect", "open files allowed", "recovery done", "listening"]
        (starting,), (settled,) = gateway.events("gateway starting"), gateway.events("configuration in effect")
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", starting["version"])
        assert settled["limits.body_timeout"] == "1m30s"
        assert settled["aws.secret_access_key"] == "***"
        assert "limits.report_bytes" not in settled
        assert "hidden-secret" not in gateway.said()
        assert gateway.stop() == 0
    assert "hidden-secret" not in gateway.said()


def test_who_tries_it_is_told_how(tmp_path: Path) -> None:
    """With the local store the program prints how to send a report and where it appears, and that is true."""
    with running(tmp_path) as gateway:
        command = r"curl -X PUT -H '(.*?)' --data '(.*?)' http://127\.0\.0\.1:(\d+)/usage"
        ((field, report, port),) = until(lambda: re.findall(command, gateway.stdout.read_text()), "the program to say how")
        assert int(port) == gateway.port
        with gateway.wire() as client:
            assert client.ask(put("/usage", report.encode(), field, user=None)).status == 204
        shown = re.search(r"^  (/.*)/usage/YYYY/MM/DD/HH/\*\.jsonl\.gz$", gateway.stdout.read_text(), re.MULTILINE)
        assert shown is not None
        assert gateway.stop() == 0
        (path,) = Path(shown[1]).glob("usage/????/??/??/??/*.jsonl.gz")
        assert gzip.decompress(path.read_bytes()) == report.encode() + b"\n"


def test_no_request_before_recovery(tmp_path: Path) -> None:
    """What an earlier run left is put in order and told before the gateway listens, and is delivered."""
    gateway = LocalGateway(tmp_path)
    folder = gateway.cache / "usage"
    folder.mkdir(parents=True)
    (gateway.cache / "FORMAT").write_text("1\n")
    (folder / "1795269540000000000.7.jsonl.open").write_bytes(b'{"n":1}\n{"n":2}\n{"to')
    with running(tmp_path) as started:
        (found,) = started.events("recovery done")
        assert (found["segments_cut"], found["quarantined"]) == (1, 1)
        assert started.events("quarantined")
        assert started.stop() == 0
    assert lines(started) == [b'{"n":1}', b'{"n":2}']


def test_a_stop_delivers_everything(tmp_path: Path) -> None:
    """A stop delivers what every stream holds, large and small, says so, and leaves nothing."""
    large = b'["%b"]' % (b"x" * 400_000)
    with running(tmp_path) as gateway:
        assert gateway.put("/usage", b"1") == 204
        assert gateway.put("/usage", large) == 204
        assert gateway.put("/error", b"2") == 204
        assert gateway.put("/specimen?uri=a.bin", b"3") == 204
        assert gateway.stop() == 0
        assert sorted(lines(gateway)) == [b"1", large]
        assert lines(gateway, "error") == [b"2"]
        assert [path.read_bytes() for path in objects(gateway, "specimen")] == [b"3"]
        assert gateway.left() == []
        (stopped,) = gateway.events("stopped")
        assert (stopped["reason"], stopped["waiting_files"]) == ("drained", 0)
        assert gateway.events("defect") == []


def test_who_comes_while_it_stops_is_sent_elsewhere(tmp_path: Path) -> None:
    """While it stops a request in flight is answered, others get 503 with Retry-After, and nobody new is let in."""
    with running(tmp_path) as gateway, gateway.wire() as slow:
        assert slow.ask(SLOW).status == 100
        with gateway.wire() as fast, gateway.wire() as plain, gateway.wire() as ready, gateway.wire() as health:
            assert fast.ask(put("/usage", b"1")).status == 204
            assert plain.ask(put("/usage", b"2", "Connection: keep-alive")).status == 204
            for client in (ready, health):
                assert client.ask(head("GET /ready", user=None)).status == 200
            gateway.signal(signal.SIGTERM)
            until(lambda: gateway.events("stopping begun"), "the stop to begin")
            for client in (fast, plain):
                answer = client.ask(put("/usage", b"3"))
                assert (answer.status, answer.json()["error"]["code"]) == (503, "stopping")
                assert int(answer.headers["retry-after"]) > 0
                assert answer.headers["connection"] == "close"
                client.socket.shutdown(socket.SHUT_WR)
                assert client.closed()
            answer = ready.ask(head("GET /ready", user=None))
            assert (answer.status, answer.json()["reasons"]) == (503, ["stopping"])
            assert health.ask(head("GET /health", user=None)).status == 200
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", gateway.port), 5).close()
        assert slow.ask(b"0123456789").status == 204
        assert gateway.wait() == 0
    assert sorted(lines(gateway)) == [b"1", b"2"]
    assert [path.read_bytes() for path in objects(gateway, "specimen")] == [b"0123456789"]
    assert gateway.left() == []


def test_idle_connections_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Connections that stay open and say nothing are closed when it stops, and do not keep it from ending well."""
    with running(tmp_path) as gateway, gateway.wire() as silent, gateway.wire() as used, gateway.wire() as fast:
        assert used.ask(head("GET /health", user=None)).status == 200
        assert fast.ask(put("/usage", b"1")).status == 204
        assert gateway.stop() == 0
        for client in (silent, used, fast):
            assert client.closed()


def test_delayed_answers_are_given(tmp_path: Path) -> None:
    """Answers that are being delayed when it stops are given, each, before it ends."""
    with running(tmp_path, {}, {"LIGHTFILE6_RESPONSE_DELAY_MS": "700"}) as gateway:
        with gateway.wire() as one, gateway.wire() as another:
            one.send(put("/usage", b"1"))
            another.send(put("/specimen?uri=a", b"2"))
            until(lambda: gateway.kept("usage") and objects(gateway, "specimen"), "both to be kept")
            gateway.signal(signal.SIGTERM)
            assert [client.answer().status for client in (one, another)] == [204, 204]
        assert gateway.wait() == 0
    assert lines(gateway) == [b"1"]


def test_who_never_ends_is_abandoned(tmp_path: Path) -> None:
    """A request that does not end is given up after its time, said, and keeps nothing of the rest from being delivered."""
    with running(tmp_path, {"shutdown": {"request_timeout": "300ms"}}) as gateway, gateway.wire() as slow:
        assert gateway.put("/usage", b"1") == 204
        slow.send(head("PUT /specimen?uri=slow.bin", "Content-Length: 1000000") + bytes(600_000))
        until(gateway.drafts, "the body to reach the disk")
        assert gateway.stop() == 0
        assert gateway.events("requests abandoned")
        assert lines(gateway) == [b"1"]
        assert gateway.left() == []
        assert slow.closed()


def hang(daemon: int, device: int) -> None:
    """Have a FUSE file system answer nothing any more, at a moment in which its daemon has no request in hand.

    A thread whose request the daemon has taken cannot even be killed, and the process of it would not end.
    """
    waiting = Path("/sys/fs/fuse/connections", str(os.minor(device)), "waiting")

    def is_idle() -> bool:
        os.kill(daemon, signal.SIGSTOP)
        until(lambda: psutil.Process(daemon).status() == psutil.STATUS_STOPPED, "the daemon to be stopped")
        if int(waiting.read_text()) == 0:
            return True
        os.kill(daemon, signal.SIGCONT)
        return False

    until(is_idle, "a moment without a request")


def test_a_disk_that_hangs_holds_up_no_stop(tmp_path: Path) -> None:
    """Where threads wait for a disk that never answers the stop ends in its time; what was acknowledged is there afterwards."""
    if shutil.which("bindfs") is None or os.geteuid():
        pytest.skip("needs bindfs (Debian: bindfs), and root")
    if not Path("/sys/fs/fuse/connections").is_mount():
        subprocess.run(["mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections"], check=True)
    below, spool = tmp_path / "below", tmp_path / "spool"
    below.mkdir()
    spool.mkdir()
    with subprocess.Popen(["bindfs", "-f", str(below), str(spool)]) as mount:
        try:
            until(lambda: spool.is_mount(), "the directory to be mounted")
            gateway = LocalGateway(tmp_path, {"shutdown": {"drain_timeout": "1s"}})
            gateway.start()
            assert gateway.put("/usage", b"1") == 204
            hang(mount.pid, spool.stat().st_dev)
            assert gateway.stop() == 3
            assert gateway.events("drain timed out")
        finally:
            mount.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "--lazy", str(spool)], check=True)
            mount.wait(20)
    below.rename(tmp_path / "mended")
    spool.rmdir()
    (tmp_path / "mended").rename(spool)
    with running(tmp_path) as started:
        assert started.stop() == 0
    assert lines(started) == [b"1"]


def test_what_cannot_be_sent_stays(tmp_path: Path) -> None:
    """With a store that is away a stop ends in its time with exit code 3 and says what is left; the next start delivers it."""
    settings = {"shutdown": {"drain_timeout": "500ms"}, "delivery": {"retry_min": "50ms", "retry_max": "50ms"}}
    gateway = LocalGateway(tmp_path)
    gateway.objects.write_text("no directory")
    with running(tmp_path, settings) as started:
        assert started.put("/usage", b"1") == 204
        assert started.put("/specimen?uri=a", b"2") == 204
        assert started.stop() == 3
        (stopped,) = started.events("stopped")
        assert stopped["waiting_files"] == 2
        assert started.events("drain timed out")
        assert len([name for name in started.left() if name.startswith(("usage/uploading/", "specimen/"))]) == 3
    gateway.objects.unlink()
    with running(tmp_path) as started:
        (found,) = started.events("recovery done")
        assert found["waiting_files"] == 2
        assert started.stop() == 0
    assert lines(started) == [b"1"]
    assert [path.read_bytes() for path in objects(started, "specimen")] == [b"2"]
    assert started.left() == []


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    """A store that stays away is told when that begins and when it ends, not at every attempt."""
    settings = {"delivery": {"retry_min": "10ms", "retry_max": "10ms"}}
    gateway = LocalGateway(tmp_path)
    gateway.objects.write_text("no directory")
    with running(tmp_path, settings) as started:
        assert started.put("/specimen?uri=a", b"2") == 204
        until(lambda: started.metric("delivery_failures_total", stream="specimen", kind="transient") > 100, "a hundred attempts")
        assert len(started.events("delivery failed", stream="specimen")) == 1
        gateway.objects.unlink()
        (recovered,) = until(lambda: started.events("delivery recovered", stream="specimen"), "delivery to work again")
        assert recovered["count"] > 100
        assert started.stop() == 0


def test_an_interval_makes_a_batch(tmp_path: Path) -> None:
    """Reports become an object at the end of their interval, while the gateway goes on."""
    environment = {"LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "1s"}
    with running(tmp_path, {}, environment) as gateway:
        began = time.monotonic()
        assert gateway.put("/usage", b"1") == 204
        until(lambda: lines(gateway) == [b"1"], "the batch")
        assert since(began) < 20
        until(lambda: gateway.left() == [], "the spool to be empty")
        assert gateway.put("/usage", b"2") == 204
        assert gateway.stop() == 0
        assert sorted(lines(gateway)) == [b"1", b"2"]
        assert len(objects(gateway, "usage")) == 2


def test_text_is_the_log_for_people(tmp_path: Path) -> None:
    """In text each event is one line with its time, level, event and fields, a request's too."""
    gateway = LocalGateway(tmp_path, {"log": {"format": "text"}})
    try:
        gateway.launch()
        (port,) = until(lambda: re.findall(r"address=http://127\.0\.0\.1:(\d+)\n", gateway.said()), "it to listen")
        gateway.port = int(port)
        assert gateway.put("/usage", b"1", user="a user") == 204
        assert gateway.put("/usage", b"no") == 400
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    told = [line for line in gateway.said().splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert any(re.search(r"info +request done +method=PUT path=/usage user=\"a user\" .*status=204", line) for line in told)
    assert any(re.search(r"request failed .*status=400", line) for line in told)
    assert "object delivered" in gateway.said()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(98, "Address already in use"), "port 8080 on h is in use"),
        (PermissionError(13, "Permission denied"), "port 8080 on h needs more rights"),
        (OSError(99, "Cannot assign requested address"), "cannot listen on h:8080: this machine has no such address"),
        (socket.gaierror(-2, "Name or service not known"), "cannot listen on h:8080 (Name or service not known)"),
    ],
)
def test_why_it_cannot_listen_is_said(error: OSError, reason: str) -> None:
    """Whatever keeps it from listening is told with what to do about it."""
    said = _why_not("h", 8080, error)
    assert reason in said
    assert "-p" in said or "listen.host" in said
