"""What a gateway inherits from whoever started it does not keep it from receiving, keeping and ending well."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.deadlines import until
from testkit.gateway_process import Gateway, executable
from testkit.running import head, put
from testkit.servers.process import free_port
from testkit.started import Started, descriptors, modes

WORKERS = pytest.mark.parametrize("workers", [1, 2])
GONE = "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
CLOSED = ["os.close(0)", "os.close(1)", "os.close(2)", "os.closerange(0, 3)"]


def settings(workers: int) -> dict[str, object]:
    """So many processes that receive."""
    return {"server": {"workers": workers}}


# --- descriptors -------------------------------------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize("closed", CLOSED)
def test_closed_descriptors_are_no_hindrance(tmp_path: Path, closed: str, workers: int) -> None:
    """Started without STDIN, STDOUT or STDERR it receives, delivers and ends with 0, and no socket is in their place."""
    gateway = Started(tmp_path, closed, settings(workers))
    try:
        gateway.start_unheard(free_port())
        assert gateway.put("/usage", b"1") == 204
        assert gateway.put("/specimen?uri=a", b"2") == 204
        assert all(each.startswith("/") for each in descriptors(gateway.pid).values())
        assert gateway.stop() == 0
        assert gateway.left() == []
    finally:
        gateway.kill()


def test_a_complaint_does_not_go_to_stdout(tmp_path: Path) -> None:
    """Without a STDERR what is wrong is not written to STDOUT, where the answer of a command is looked for."""
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *executable(), "check-config", "-c", str(tmp_path / "none.yml")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (2, b"")


@WORKERS
@pytest.mark.parametrize(
    "statements",
    ["os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", GONE],
    ids=["a STDOUT that takes nothing", "a working directory that was removed"],
)
def test_what_it_can_do_without(tmp_path: Path, statements: str, workers: int) -> None:
    """It loses only the advice for STDOUT there, and needs no working directory where the paths it is given are whole."""
    gateway = Started(tmp_path, statements, settings(workers))
    try:
        gateway.start()
        assert gateway.put("/usage", b"1") == 204
        assert gateway.stop() == 0
    finally:
        gateway.kill()


@pytest.mark.parametrize("command", ["version", "check-config"])
def test_an_answer_that_cannot_be_given(tmp_path: Path, command: str) -> None:
    """A command whose answer STDOUT does not take ends with 1 and one line that says so."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*executable(), command, "--local", str(tmp_path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "STDOUT does not take the answer (No space left on device)" in line


def test_a_configuration_may_be_a_descriptor(tmp_path: Path) -> None:
    """A further descriptor stays open, so that the configuration can come from another program (`-c <(…)`)."""
    (tmp_path / "config.yml").write_text("log: {level: error}")
    with open(tmp_path / "config.yml", "rb") as file:
        done = subprocess.run(
            [*executable(), "check-config", "--local", str(tmp_path), "-c", f"/dev/fd/{file.fileno()}"],
            pass_fds=(file.fileno(),),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0
    assert "level: error" in done.stdout


# --- signals -----------------------------------------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize(
    "before",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "[signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)]",
    ],
    ids=["blocked", "ignored"],
)
def test_signals_that_were_blocked_or_ignored_arrive(tmp_path: Path, before: str, workers: int) -> None:
    """A SIGTERM stops it, whatever mask and dispositions it was started with; nothing of them stays."""
    gateway = Started(tmp_path, before, settings(workers))
    try:
        gateway.start()
        status = Path(f"/proc/{gateway.pid}/status").read_text()
        masks = {name: int(value, 16) for name, value in re.findall(r"^(SigBlk|SigIgn):\s+(\w+)$", status, re.MULTILINE)}
        meant = sum(1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))
        assert (masks["SigBlk"], masks["SigIgn"] & meant) == (0, 0)
        assert gateway.put("/usage", b"1") == 204
        assert gateway.stop() == 0
    finally:
        gateway.kill()


def test_a_closed_terminal_leaves_no_orphan(tmp_path: Path) -> None:
    """When the terminal that it runs in is closed, it drains as at a SIGTERM, and no process of it stays."""
    master, slave = os.openpty()
    # The first process of a session gets the terminal that it opens.
    before = f"os.close(os.open({os.ttyname(slave)!r}, os.O_RDWR))"
    gateway = Started(tmp_path, before, settings(2))
    try:
        gateway.start()
        assert gateway.put("/usage", b"1") == 204
        workers = [line["pid"] for line in gateway.events("worker started")]
        os.close(slave)
        os.close(master)
        assert gateway.wait() == 0
        assert [line["signal"] for line in gateway.events("stopping begun")] == ["SIGHUP"]
        assert gateway.left() == []
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    finally:
        gateway.kill()


def test_a_terminal_that_says_it_twice(tmp_path: Path) -> None:
    """A further SIGHUP of a closed terminal is no second signal, which would end it before it has drained."""
    master, slave = os.openpty()
    before = f"os.close(os.open({os.ttyname(slave)!r}, os.O_RDWR))"
    gateway = Started(tmp_path, before, {}, {"LIGHTFILE6_RESPONSE_DELAY_MS": "1500"})
    try:
        gateway.start()
        with gateway.wire() as slow, gateway.wire() as delayed:
            assert slow.ask(head("PUT /specimen?uri=a", "Content-Length: 1", "Expect: 100-continue")).status == 100
            delayed.send(put("/usage", b"1"))
            until(lambda: gateway.kept("usage"), "the report to be kept")
            gateway.signal(signal.SIGHUP)
            # What comes within a second of a first signal is no second one anyway.
            assert delayed.answer().status == 204
            gateway.signal(signal.SIGHUP)
            assert slow.ask(b"2").status == 204
        assert gateway.wait() == 0
        assert gateway.events("stopped")[0]["reason"] == "drained"
    finally:
        gateway.kill()
        os.close(slave)
        os.close(master)


@WORKERS
def test_nohup_is_respected(tmp_path: Path, workers: int) -> None:
    """A SIGHUP that was ignored at the start stays ignored."""
    gateway = Started(tmp_path, "signal.signal(signal.SIGHUP, signal.SIG_IGN)", settings(workers))
    try:
        gateway.start()
        gateway.signal(signal.SIGHUP)
        assert gateway.put("/usage", b"1") == 204
        assert gateway.stop() == 0
        assert gateway.events("reloaded") == []
        assert [line["signal"] for line in gateway.events("stopping begun")] == ["SIGTERM"]
    finally:
        gateway.kill()


@WORKERS
def test_without_a_terminal_it_reloads(tmp_path: Path, workers: int) -> None:
    """A SIGHUP without a terminal ends nothing and is told in one line, which says what is not read again."""
    gateway = Started(tmp_path, "", settings(workers))
    try:
        gateway.start()
        os.killpg(gateway.pid, signal.SIGHUP)
        (line,) = until(lambda: gateway.events("reloaded"), "the reload")
        assert (line["certificate"], "config.yml" in line["unchanged"]) == (None, True)
        assert gateway.put("/usage", b"1") == 204
        assert gateway.stop() == 0
        assert gateway.events("worker died") == []
    finally:
        gateway.kill()


# --- limits, umask, directory, environment -----------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize("umask", [0o777, 0o000])
def test_the_umask_does_not_matter(tmp_path: Path, umask: int, workers: int) -> None:
    """Whatever the umask, what it makes belongs to its user: to read, to write, and to nobody else."""
    gateway = Started(tmp_path, f"os.umask({umask})", settings(workers))
    try:
        gateway.start()
        assert gateway.put("/usage", b"1") == 204
        found = modes(gateway.cache)
        assert {mode for path, mode in found.items() if (gateway.cache / path).is_dir()} == {0o700}
        assert {mode for path, mode in found.items() if not (gateway.cache / path).is_dir()} == {0o600}
        assert gateway.stop() == 0
        assert set(modes(gateway.objects).values()) == {0o600, 0o700}
    finally:
        gateway.kill()


def test_a_limit_on_file_sizes_is_an_error_of_one_request(tmp_path: Path) -> None:
    """A body that the process may not write is refused, the rest is kept and delivered, and the gateway goes on."""
    gateway = Started(tmp_path, "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))")
    try:
        gateway.start()
        refused = gateway.request("PUT", "/specimen?uri=large", bytes(400_000), {"USER_TOKEN": "a"})
        assert (refused.status, "ulimit -f" in refused.body.decode()) == (503, True)
        assert gateway.put("/usage", b'["%b"]' % (b"x" * 250_000)) == 503
        assert gateway.put("/specimen?uri=small", b"1") == 204
        assert gateway.put("/usage", b"2") == 204
        assert gateway.stop() == 0
    finally:
        gateway.kill()


@pytest.mark.parametrize("command", [["-p", "0"], ["check-config"]])
def test_a_path_in_a_directory_that_was_removed(tmp_path: Path, command: list[str]) -> None:
    """A path that leads nowhere because the working directory was removed is told in one line."""
    statements = f"import os, sys; {GONE}; os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", statements, *executable(), *command, "--local", "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "--local data: the working directory was removed" in line


def test_a_path_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    """In a locale without its characters a path is shown escaped."""
    gateway = Gateway(tmp_path / "program", {}, {"PYTHONIOENCODING": "ascii"})
    (tmp_path / "program").mkdir()
    done = gateway.run("check-config", "--local", str(tmp_path / "データ"))
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u30c7" in done.stdout


def test_secrets_of_tls_are_not_written_down(tmp_path: Path) -> None:
    """A SSLKEYLOGFILE of a login shell neither keeps it from starting nor has anything written there."""
    for path in ("/nonexistent/keys", str(tmp_path / "keys")):
        gateway = Gateway(tmp_path, {}, {"SSLKEYLOGFILE": path})
        assert gateway.run("check-config", "--local", str(tmp_path / "data")).returncode == 0
    assert not (tmp_path / "keys").exists()
