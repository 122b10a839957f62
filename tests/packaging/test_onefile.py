"""The one file that users download: where it unpacks itself, how signals reach it, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import PROGRAM, clean_environment
from testkit.running import LocalGateway

NOBODY = 65534
ADVICE = re.compile(
    rf"{PROGRAM}: it unpacks itself when it starts, and (?P<fault>.+): set TMPDIR to a directory that this user may write to, "
    r"that is not mounted noexec, and that has \d\d MB free\n"
)


def run(
    onefile: Path, *arguments: str, user: int | None = None, script: str = "", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `script` runs before it, in a mount namespace of its own."""
    command = [str(onefile), *arguments]
    if script:
        command = ["unshare", "--map-root-user", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *command]
    return subprocess.run(
        command,
        env=bare_environment(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30 * TIMEOUT_FACTOR,
        user=user,
        check=False,
    )


def bare_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of the tests without a temporary directory, and with `extra`."""
    return {name: value for name, value in clean_environment(extra).items() if name != "TMPDIR" or name in extra}


def fault(done: subprocess.CompletedProcess[str]) -> str:
    """Why it could not unpack itself, told in the one line that it said."""
    assert (done.returncode, done.stdout) == (1, ""), done
    told = ADVICE.fullmatch(done.stderr)
    assert told is not None, done.stderr
    return told["fault"]


def folders(place: Path) -> list[Path]:
    """Where it is unpacked."""
    return list(place.glob(f"{PROGRAM}-unpacked-*"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a directory to unpack into."""
    made = tmp_path / "unpacked"
    made.mkdir()
    return made


@pytest.fixture
def gateways(onefile: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LocalGateway]]:
    """Give two gateways from the one file, not started; both are gone when the test ends."""
    monkeypatch.setenv("GATEWAY_TEST_EXECUTABLE", str(onefile))
    made = [LocalGateway(tmp_path / name, environment={"TMPDIR": str(place)}) for name in ("first", "second")]
    yield made
    for gateway in made:
        gateway.kill()


# --- the file ----------------------------------------------------------------------------------------------------


def test_it_is_small(onefile: Path) -> None:
    """The download is no larger than promised."""
    assert onefile.stat().st_size <= 20_000_000


def test_it_needs_nothing_but_the_c_library(onefile: Path, place: Path) -> None:
    """It needs no interpreter and no compiler, no PATH and no HOME, and of the system only the C library."""
    needed = subprocess.run(["objdump", "-p", onefile], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"NEEDED +(\S+)", needed) == ["libc.so.6"]
    done = subprocess.run([onefile, "version"], env={"TMPDIR": str(place)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_tells_what_it_was_built_from(onefile: Path) -> None:
    """`version` tells the version, the commit and when it was built."""
    done = run(onefile, "version")
    told = rf"{PROGRAM} \d+\.\d+\.\d+\S* \(commit [0-9a-f]{{12}}, built \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)\n"
    assert re.fullmatch(told, done.stdout), done


# --- signals -----------------------------------------------------------------------------------------------------


def test_it_is_one_process(gateways: list[LocalGateway], place: Path) -> None:
    """It runs as one process, which drains once at SIGTERM and removes what it unpacked."""
    gateway = gateways[0]
    gateway.start()
    (line,) = gateway.events("gateway starting")
    assert psutil.Process(line["pid"]).children(recursive=True) == []
    assert gateway.put("/usage", b'{"n":1}') == 204
    assert len(folders(place)) == 1
    process = psutil.Process(line["pid"])
    assert gateway.stop() == 0
    assert len(gateway.events("stopping begun")) == 1
    assert not process.is_running()
    assert folders(place) == []


def test_ctrl_c_drains_once(gateways: list[LocalGateway], place: Path) -> None:
    """Ctrl-C, which goes to the whole process group, drains once."""
    gateway = gateways[0]
    gateway.start()
    os.killpg(gateway.events("gateway starting")[0]["pid"], signal.SIGINT)
    assert gateway.wait() == 0
    assert len(gateway.events("stopping begun")) == 1
    assert folders(place) == []


def test_killing_it_leaves_nothing_that_serves(gateways: list[LocalGateway]) -> None:
    """SIGKILL to the process that was started frees its port and its spool at once, and nothing is lost."""
    gateway = gateways[0]
    gateway.start()
    assert gateway.put("/usage", b'{"n":1}') == 204
    gateway.signal(signal.SIGKILL)
    assert gateway.wait() == -signal.SIGKILL
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port), 5).close()
    gateway.start()
    assert gateway.stop() == 0
    assert gateway.left() == []


@pytest.mark.parametrize("as_first_process", [False, True], ids=["any process", "first process of a container"])
def test_a_signal_at_any_moment_of_the_start_stops_it(onefile: Path, place: Path, tmp_path: Path, as_first_process: bool) -> None:
    """SIGTERM ends it from its first instruction on, as the first process of a container too, which ignores by default."""
    wrapper = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"] if as_first_process else []
    codes = set()
    for delay_ms in range(0, 600, 30):
        process = subprocess.Popen(
            [*wrapper, onefile, "-p", "0", "--local", tmp_path / "data"],
            env=bare_environment({"TMPDIR": str(place)}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        target = _program_below(process.pid) if as_first_process else process.pid
        time.sleep(delay_ms / 1000)
        os.kill(target, signal.SIGTERM)
        codes.add(process.wait(20 * TIMEOUT_FACTOR))
    # 3 before it serves, 0 once it does; before its first instruction the signal itself.
    assert codes <= {0, 3, -signal.SIGTERM}, codes
    assert 3 in codes, codes


def _program_below(parent: int) -> int:
    """The process that `unshare` has started, once it is the program."""

    def program() -> int | None:
        children = psutil.Process(parent).children()
        return children[0].pid if children and PROGRAM in children[0].exe() else None

    found = until(program, "unshare to start the program")
    assert found is not None
    return found


# --- the folder --------------------------------------------------------------------------------------------------


def test_the_next_start_removes_what_a_killed_run_left(gateways: list[LocalGateway], place: Path) -> None:
    """The folder of a killed run is gone after the next start; that of a run that lives, and what is not ours, stay."""
    living, killed = gateways
    killed.start()
    killed.signal(signal.SIGKILL)
    killed.wait()
    (left,) = folders(place)
    living.start()
    assert not left.exists()
    (of_living,) = folders(place)
    killed.start()
    assert of_living.exists()
    assert killed.stop() == 0
    assert living.put("/usage", b"{}") == 204
    assert living.stop() == 0
    assert folders(place) == []


@pytest.mark.parametrize(
    "name",
    [
        "-backup-2026-11",
        "-data.old-today",
        "-20261121backup",
        "-unpacked-backup-2026-11",
        "-unpacked-0000000gabcdef",
        "-unpacked-",
    ],
)
def test_what_a_person_has_put_there_stays(onefile: Path, place: Path, name: str) -> None:
    """A directory whose name begins like those of the program, a copy of a spool say, is not the program's to remove."""
    (place / f"{PROGRAM}{name}").mkdir()
    (place / f"{PROGRAM}{name}" / "report").write_text("precious")
    assert run(onefile, "version", variables={"TMPDIR": str(place)}).returncode == 0
    assert (place / f"{PROGRAM}{name}" / "report").read_text() == "precious"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_are_no_hindrance(onefile: Path, place: Path, closed: str) -> None:
    """It starts where a supervisor has closed standard streams."""
    done = subprocess.run(["sh", "-c", f'exec {closed}; exec "$0" version', onefile], env={"TMPDIR": str(place)}, check=False)
    assert done.returncode == 0
    assert folders(place) == []


def test_another_users_folder_is_left_alone(onefile: Path, place: Path) -> None:
    """What another user's run has left is not this user's to remove."""
    place.chmod(0o1777)
    place.parent.chmod(0o755)
    left = place / f"{PROGRAM}-unpacked-00000001abcdef"
    left.mkdir()
    os.chown(left, NOBODY, NOBODY)
    assert run(onefile, "version", variables={"TMPDIR": str(place)}).returncode == 0
    assert left.exists()
    os.chown(left, os.getuid(), os.getgid())
    assert run(onefile, "version", variables={"TMPDIR": str(place)}).returncode == 0
    assert not left.exists()


def test_many_starts_at_once_do_not_disturb_each_other(onefile: Path, place: Path) -> None:
    """Starts that make, lock and clean at the same moment all succeed, and leave nothing."""
    processes = [subprocess.Popen([onefile, "version"], env={"TMPDIR": str(place)}, stdout=subprocess.DEVNULL) for _ in range(24)]
    assert [process.wait(60 * TIMEOUT_FACTOR) for process in processes] == [0] * len(processes)
    assert folders(place) == []


# --- a temporary directory that will not do ------------------------------------------------------------------------


def test_a_missing_temporary_directory(onefile: Path, place: Path) -> None:
    """A TMPDIR that is not there, or is a file, is one line that says what to set."""
    assert fault(run(onefile, "version", variables={"TMPDIR": f"{place}/none"})) == f"TMPDIR={place}/none does not exist"
    (place / "file").write_text("")
    assert fault(run(onefile, "version", variables={"TMPDIR": f"{place}/file"})) == f"TMPDIR={place}/file is no directory"


def test_a_temporary_directory_of_somebody_else(onefile: Path, place: Path) -> None:
    """A TMPDIR that the user may not write to is one line that says what to set."""
    for folder in (*place.parents, *onefile.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    told = fault(run(onefile, "version", user=NOBODY, variables={"TMPDIR": str(place)}))
    assert told == f"TMPDIR={place} may not be written to by this user"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("noexec", "is mounted noexec"),
        ("ro", "is on a read-only file system"),
        ("size=20m", r"has \d+ MB free"),
        ("nr_inodes=20", r"has no room for \d+ more files"),
    ],
)
def test_a_file_system_that_will_not_do(onefile: Path, place: Path, options: str, told: str) -> None:
    """A TMPDIR that is mounted noexec or read-only, or is full, is one line that says what to set."""
    done = run(onefile, "version", script=f"mount -t tmpfs -o {options} tmpfs {place}", variables={"TMPDIR": str(place)})
    assert re.fullmatch(f"TMPDIR={place} {told}", fault(done))


def test_what_fits_is_enough(onefile: Path, place: Path) -> None:
    """It needs no more room than it says."""
    asked = run(onefile, "version", script=f"mount -t tmpfs -o size=1m tmpfs {place}", variables={"TMPDIR": str(place)})
    megabytes = re.search(r"(\d+) MB free\n", asked.stderr)
    assert megabytes is not None, asked
    script = f"mount -t tmpfs -o size={int(megabytes[1]) * 1000}k tmpfs {place}"
    assert run(onefile, "version", script=script, variables={"TMPDIR": str(place)}).returncode == 0


def test_without_tmpdir_there_are_two_places(onefile: Path, tmp_path: Path) -> None:
    """Without TMPDIR it takes /tmp, else /var/tmp; where neither will do the line names both."""
    # The mounts would hide a program that lies below /tmp.
    hidden = f"mkdir -p /mnt && mount -t tmpfs tmpfs /mnt && cp {onefile} /mnt/program && mount -t tmpfs -o noexec tmpfs /tmp"
    where = "exec /mnt/program healthcheck -p 1"
    done = run(onefile, "version", script=f"{hidden}; {where}")
    assert done.returncode == 1
    assert done.stderr.startswith("not healthy: ")
    done = run(onefile, "version", script=f"{hidden}; mount -t tmpfs -o noexec tmpfs /var/tmp; {where}")
    assert fault(done) == "/tmp is mounted noexec, /var/tmp is mounted noexec"


# --- what it starts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, "/opt/somewhere"])
def test_the_programs_that_it_starts_have_their_own_libraries(onefile: Path, tmp_path: Path, before: str | None) -> None:
    """A credential process of AWS gets the library path that the gateway was started with."""
    (tmp_path / "ask").write_text(f'#!/bin/sh\necho "${{LD_LIBRARY_PATH-unset}}" >{tmp_path}/path\nexit 1\n')
    (tmp_path / "ask").chmod(0o755)
    (tmp_path / "aws").write_text(f"[default]\ncredential_process = {tmp_path}/ask\n")
    settings = {f"LIGHTFILE6_S3_{name}_BUCKET": "bucket" for name in ("USAGE", "ERROR", "SPECIMEN")}
    environment = {**settings, "AWS_CONFIG_FILE": str(tmp_path / "aws"), "LIGHTFILE6_AWS_REGION": "us-east-1"}
    if before is not None:
        environment["LD_LIBRARY_PATH"] = before
    done = run(onefile, "check-config", variables=environment)
    assert done.returncode == 2, done
    assert (tmp_path / "path").read_text().strip() == (before or "unset")
