"""The unit for systemd: systemd understands all of it, and it says what the program does."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli.parser import BAD_USAGE, DEFAULT_CONFIG, parse
from gateway.config.schema import KEYS
from gateway.service.service import LEFT_DATA
from gateway.service.unix_socket import MODE

UNIT = Path(__file__).resolve().parents[2] / "packaging" / "systemd" / "lightfile6-insights-gateway.service"
SOCKET = UNIT.with_suffix(".socket")
# From 0, which nothing can be, to 10; services that speak to a network end at about 1.
MOST_EXPOSURE = 1.5


def values(key: str, unit: Path = UNIT) -> list[str]:
    """All values that the unit gives a key, in their order."""
    return [line.partition("=")[2] for line in unit.read_text("utf-8").splitlines() if line.startswith(f"{key}=")]


def value(key: str, unit: Path = UNIT) -> str:
    """The one value that the unit gives a key."""
    (only,) = values(key, unit)
    return only


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Give a copy of the unit whose program is on this machine; the real one is where the package puts it."""
    copy = tmp_path / UNIT.name
    words = shlex.split(value("ExecStart"))
    copy.write_text(UNIT.read_text("utf-8").replace(f"ExecStart={words[0]}", f"ExecStart={shutil.which('true')}"))
    return copy


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here (on Debian the package systemd)")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_no_fault(installed: Path) -> None:
    """The unit is read by systemd without an error and without a warning."""
    done = analyze("verify", "--recursive-errors=no", installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_finds_no_fault_in_the_socket(installed: Path) -> None:
    """The socket unit, beside its service, is read by systemd without an error and without a warning."""
    copy = installed.with_suffix(".socket")
    copy.write_text(SOCKET.read_text("utf-8"))
    done = analyze("verify", "--recursive-errors=no", copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_socket_is_what_the_gateway_takes() -> None:
    """One process gets all connections of both families, at the port of the service, and nothing enables it by itself."""
    assert value("ListenStream", SOCKET) == "8080"
    assert (value("Accept", SOCKET), value("BindIPv6Only", SOCKET)) == ("no", "both")
    assert value("AssertPathExists", SOCKET) == value("AssertPathExists")
    assert int(value("SocketMode", SOCKET), 8) == MODE
    assert "Sockets" not in UNIT.read_text("utf-8")


def test_a_reload_is_a_sighup() -> None:
    """`systemctl reload` sends the signal that has the certificate read again."""
    assert value("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_a_fault_would_be_found(installed: Path) -> None:
    """The check above sees a key that does not exist."""
    installed.write_text(installed.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", "--recursive-errors=no", installed).stderr


def test_little_is_exposed(installed: Path) -> None:
    """What a broken-in gateway could reach stays little, by the measure of systemd itself."""
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", "--no-pager", installed)
    assert done.returncode == 0, done.stdout


def test_stopping_may_take_as_long_as_draining() -> None:
    """The SIGKILL of systemd comes later than the gateway takes to stop at most, by default."""
    deadlines = [KEYS[f"shutdown.{name}_timeout"].default for name in ("request", "drain")]
    assert sum(seconds for seconds in deadlines if isinstance(seconds, float)) == pytest.approx(330)
    assert int(value("TimeoutStopSec")) > 330


def test_exit_codes_are_understood() -> None:
    """Data left in the spool is no failure, and a bad configuration is not tried again; everything else is."""
    assert value("SuccessExitStatus") == str(LEFT_DATA)
    assert value("RestartPreventExitStatus") == str(BAD_USAGE)
    assert (value("Restart"), value("StartLimitIntervalSec")) == ("always", "0")


def test_command_line_is_the_programs() -> None:
    """The program understands how it is started, and the file whose absence is told is the one that it reads."""
    words = shlex.split(value("ExecStart").replace("${PORT}", "8080"))
    options = parse(words[1:])
    assert (options.command, options.port, options.config) == ("serve", 8080, DEFAULT_CONFIG)
    assert value("AssertPathExists") == str(DEFAULT_CONFIG)
    assert "PORT=8080" in values("Environment")


def test_directories_are_the_programs() -> None:
    """The state directory is the default cache_dir, and the program unpacks itself into the cache directory."""
    assert Path("/var/lib", value("StateDirectory")) == KEYS["cache_dir"].default
    assert f"TMPDIR=/var/cache/{value('CacheDirectory')}" in values("Environment")


def test_what_is_taken_away() -> None:
    """The gateway cannot gain privileges, has none, and may write nowhere but where it has to."""
    wanted = {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "MemoryDenyWriteExecute": "yes",
    }
    assert {key: value(key) for key in wanted} == wanted
