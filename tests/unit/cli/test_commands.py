"""The command line: subcommands, usage, exit codes."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import commands
from gateway.cli.healthcheck import healthcheck
from gateway.config.schema import KEYS
from gateway.core.build_info import current
from testkit.gateway_process import PROGRAM, Gateway
from testkit.running import running
from testkit.servers.fake_s3 import FORBIDDEN, SLOW_DOWN, FakeS3, fake_s3
from testkit.servers.process import free_port

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    """Run a small S3."""
    with fake_s3() as server:
        yield server


def program(folder: Path, settings: Mapping[str, Any] | None = None, **environment: str) -> Gateway:
    """The program, with a configuration that is not started."""
    return Gateway(folder / "program", settings or {}, environment)


def s3_settings(endpoint: str, **sections: Any) -> dict[str, Any]:
    """A whole configuration for a store at this endpoint."""
    return {
        "aws": {"region": "us-east-1", "endpoint": endpoint, "access_key_id": "AKID", "secret_access_key": SECRET},
        "s3": {"usage_bucket": "usage-b", "error_bucket": "error-b", "specimen_bucket": "specimen-b"},
        **sections,
    }


# --- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve"],
        ["-p"],
        ["-p", "http"],
        ["-p", "-1"],
        ["-p", "65536"],
        ["-p", "\uff18\uff10"],
        ["-p", "8080", "--unknown"],
        ["launch", "-p", "8080"],
        ["-p", "8080", "-c"],
        ["version", "extra"],
    ],
)
def test_bad_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that make no sense are exit code 2, with one line that says what is wrong and where to read more."""
    with pytest.raises(SystemExit) as exited:
        commands.run(arguments)
    assert exited.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"{PROGRAM}: ")
    assert f"{PROGRAM} --help" in line


def test_a_missing_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Who forgets the port is told how to give it."""
    with pytest.raises(SystemExit):
        commands.run([])
    assert "-p PORT is required" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` tells every flag, examples, and what the exit codes mean."""
    with pytest.raises(SystemExit) as exited:
        commands.run(["--help"])
    assert exited.value.code == 0
    said = capsys.readouterr().out
    for text in ("-p PORT", "-c FILE", "--local DIR", "check-config", "healthcheck", "version", "examples:", "exit codes:"):
        assert text in said
    assert re.search(r"0 drained.*1 failed.*2 bad usage.*3 stopped with data left", said)


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`version` prints the program and its version, and needs no configuration."""
    assert commands.run(["version"]) == 0
    assert capsys.readouterr().out == f"{PROGRAM} {current()}\n"


def test_the_program_is_installed(tmp_path: Path) -> None:
    """The program itself answers as its parts do, with nothing on STDERR."""
    (tmp_path / "program").mkdir()
    done = program(tmp_path).run("version")
    assert (done.returncode, done.stderr) == (0, "")
    # It may have been frozen, and then says when.
    assert done.stdout.split(",")[0] == f"{PROGRAM} {current()}".split(",")[0]
    assert program(tmp_path).run("--port", "x").returncode == 2


# --- check-config ------------------------------------------------------------------------------------------------


def test_check_config_prints_what_is_in_effect(fake: FakeS3, tmp_path: Path) -> None:
    """check-config prints every setting, secrets masked, and is content with a store that takes its proof."""
    gateway = program(tmp_path, s3_settings(fake.endpoint, limits={"body_timeout": "90s"}), LIGHTFILE6_S3_USAGE_PREFIX="u")
    done = gateway.run("check-config", *gateway.with_config())
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    printed = yaml.safe_load(done.stdout)
    assert printed["aws"]["secret_access_key"] == "***"
    assert printed["limits"]["body_timeout"] == "1m30s"
    assert printed["s3"]["usage_prefix"] == "u/"
    assert {path for path in KEYS if "." not in path} <= set(printed)
    assert printed.pop("streams") == {}
    assert sum(len(value) if isinstance(value, dict) else 1 for value in printed.values()) == len(KEYS) - 1
    assert {request.bucket for request in fake.requests} == {"usage-b", "error-b", "specimen-b"}
    # It makes no spool.
    assert not gateway.cache.exists()


def test_check_config_names_each_bucket_that_fails(fake: FakeS3, tmp_path: Path) -> None:
    """A bucket that cannot be written is a line of its own, exit code 2."""
    fake.missing_buckets = {"error-b", "specimen-b"}
    gateway = program(tmp_path, s3_settings(fake.endpoint))
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{PROGRAM}: s3.error_bucket: ")
    assert second.startswith(f"{PROGRAM}: s3.specimen_bucket: ")
    assert "NoSuchBucket" in first
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("fault", [FORBIDDEN, SLOW_DOWN])
def test_check_config_tells_what_the_store_says(fault: Any, fake: FakeS3, tmp_path: Path) -> None:
    """A store that refuses, or is busy, is told for each bucket, exit code 2 and no traceback."""
    fake.fail_always("PutObject", fault)
    gateway = program(tmp_path, s3_settings(fake.endpoint))
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3
    assert all(fault.code in line for line in done.stderr.splitlines())


def test_check_config_tells_that_nobody_listens(tmp_path: Path) -> None:
    """A store that is away is a fault of the configuration for check-config, though the gateway would wait for it."""
    gateway = program(tmp_path, s3_settings(f"http://127.0.0.1:{free_port()}"))
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    assert "s3.usage_bucket: " in done.stderr
    assert "Traceback" not in done.stderr


def test_check_config_tells_that_there_are_no_credentials(fake: FakeS3, tmp_path: Path) -> None:
    """Without any credentials check-config fails and says where they could come from."""
    settings = s3_settings(fake.endpoint)
    del settings["aws"]["access_key_id"], settings["aws"]["secret_access_key"]
    gateway = program(tmp_path, settings)
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    assert "aws: no credentials" in done.stderr
    assert fake.requests == []
    found = program(tmp_path, settings, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="s")
    assert found.run("check-config", *found.with_config()).returncode == 0


def test_check_config_tells_all_faults(tmp_path: Path) -> None:
    """All faults are told at once, each in a line with its path, and nothing else is printed."""
    settings = s3_settings("ftp://x", limit={"report_bytes": 1}, limits={"body_timeout": "soon"})
    gateway = program(tmp_path, settings, LIGHTFILE6_S3_USAGE_BUCKTE="b")
    done = gateway.run("check-config", *gateway.with_config())
    assert (done.returncode, done.stdout) == (2, "")
    lines = [line.removeprefix(f"{PROGRAM}: ") for line in done.stderr.splitlines()]
    assert sorted(line.partition(":")[0] for line in lines) == [
        "LIGHTFILE6_S3_USAGE_BUCKTE",
        "aws.endpoint",
        "limit",
        "limits.body_timeout",
    ]


def test_check_config_of_a_local_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the local store check-config needs neither file nor network, and shows where the spool would be."""
    assert commands.run(["check-config", "--local", str(tmp_path)]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["cache_dir"] == str(tmp_path / "spool")
    assert list(tmp_path.iterdir()) == []


def test_a_file_comes_over_what_local_takes_for_default(tmp_path: Path) -> None:
    """With `--local` alone objects appear within seconds; what a file or a variable says about that counts more."""
    gateway = program(tmp_path, {"aggregation": {"usage_interval": "2m"}}, LIGHTFILE6_AGGREGATION_ERROR_INTERVAL="3m")
    done = gateway.run("check-config", "--local", str(tmp_path), *gateway.with_config())
    found = yaml.safe_load(done.stdout)["aggregation"]
    assert (found["usage_interval"], found["error_interval"]) == ("2m", "3m")
    alone = program(tmp_path).run("check-config", "--local", str(tmp_path))
    assert yaml.safe_load(alone.stdout)["aggregation"]["usage_interval"] == "10s"


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """A file that was named and is not there is a fault; the default one may be missing."""
    (tmp_path / "program").mkdir()
    done = program(tmp_path).run("check-config", "-c", str(tmp_path / "none.yml"), "--local", str(tmp_path / "data"))
    assert done.returncode == 2
    assert str(tmp_path / "none.yml") in done.stderr


# --- healthcheck -------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Run something on a port that says this to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(30)


def test_a_running_gateway_is_healthy(tmp_path: Path) -> None:
    """The healthcheck of a running gateway is exit code 0 and says nothing, wherever its flags stand."""
    with running(tmp_path) as gateway:
        port = str(gateway.port)
        for arguments in (
            ["healthcheck", "-p", port],
            ["healthcheck", "--port", port, "--host", "localhost"],
            ["-p", port, "healthcheck"],
        ):
            done = gateway.run(*arguments)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert Gateway(tmp_path, {}, {"PORT": port}).run("healthcheck").returncode == 0


def test_the_port_may_come_from_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -p the port is that of the variable PORT, where there is one and it is a port."""
    (tmp_path / "other").mkdir()
    with running(tmp_path / "first") as gateway:
        taken = str(gateway.port)
        other = Gateway(tmp_path / "other", {"listen": {"host": "127.0.0.1"}}, {"PORT": taken})
        done = other.run("--local", str(tmp_path / "other"))
    assert done.returncode == 1
    assert f"port {taken}" in done.stderr
    done = Gateway(tmp_path, {}, {"PORT": "http"}).run("--local", str(tmp_path))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the variable PORT: 'http' is no port" in done.stderr
    for port in ("http", ""):
        assert Gateway(tmp_path, {}, {"PORT": port}).run("version").returncode == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "abc"),
    ],
)
def test_what_is_not_healthy_is_said(answer: bytes, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever else listens there is not healthy: exit code 1 and one line that says why."""
    with answering(answer) as port:
        assert healthcheck(["-p", str(port)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("not healthy: ")
    assert reason in said.err
    assert said.err.count("\n") == 1


def test_nobody_there_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    """A port on which nobody listens is not healthy."""
    assert healthcheck(["-p", str(free_port())]) == 1
    assert "not healthy: " in capsys.readouterr().err


def test_who_does_not_answer_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    """Who listens and does not answer is not healthy after the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert healthcheck(["-p", str(server.getsockname()[1]), "--timeout", "0.05"]) == 1
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["-p", "http"], {}), (["-p", "99999"], {}), (["-p", "-1"], {}), (["extra"], {}), ([], {"PORT": "tcp://10.0.0.1:80"})],
)
def test_a_healthcheck_that_makes_no_sense_is_no_traceback(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """A port that is none is told in a line, not in a traceback, and never exit code 0."""
    (tmp_path / "program").mkdir()
    done = program(tmp_path, None, **environment).run("healthcheck", *arguments)
    assert done.returncode in (1, 2)
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_healthcheck_never_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands before it, the word healthcheck asks and does not start a gateway."""
    served: list[object] = []

    def serve(*given: object) -> int:
        served.append(given)
        return 0

    monkeypatch.setattr("gateway.cli.serve.serve", serve)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("LIGHTFILE6_")]:
        monkeypatch.delenv(name)
    assert commands.run(["-p", str(free_port()), "--local", str(tmp_path), "healthcheck"]) == 1
    assert served == []


def test_check_config_looks_at_the_disk(tmp_path: Path) -> None:
    """A cache_dir that cannot be made or used is a fault for check-config in the words of the start, and nothing is made."""
    (tmp_path / "file").write_text("")
    (tmp_path / "program").mkdir()
    for place, reason in ((tmp_path / "file", "Not a directory"), (Path("/proc/nope"), "/proc/nope")):
        gateway = program(tmp_path)
        checked = gateway.run("check-config", "--local", str(place))
        started = gateway.run("-p", "0", "--local", str(place))
        assert (checked.returncode, started.returncode) == (2, 1)
        assert checked.stderr == started.stderr.splitlines(keepends=True)[-1]
        assert checked.stderr.startswith(f"{PROGRAM}: cache_dir {place}/spool cannot be used (")
        assert reason in checked.stderr
    done = program(tmp_path).run("check-config", "--local", str(tmp_path / "a" / "b"))
    assert done.returncode == 0
    assert not (tmp_path / "a").exists()


def test_check_config_does_what_a_large_object_does(fake: FakeS3, tmp_path: Path) -> None:
    """A role that may not abort an upload, or not look at an object, is found before the first one needs it."""
    for operation, permission in (("AbortMultipartUpload", "s3:AbortMultipartUpload"), ("HeadObject", "s3:GetObject")):
        fake.fail_always(operation, FORBIDDEN)
        gateway = program(tmp_path, s3_settings(fake.endpoint))
        done = gateway.run("check-config", *gateway.with_config())
        assert done.returncode == 2
        assert done.stderr.count(permission) >= 3
        fake.fail_always(operation, None)


def test_check_config_says_what_was_proved(fake: FakeS3, tmp_path: Path) -> None:
    """Success ends with a sentence for the disk and for each bucket, which a reader of YAML passes over."""
    gateway = program(tmp_path, s3_settings(fake.endpoint), HTTP_PROXY="")
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 0
    *_, disk, usage, error, specimen = done.stdout.splitlines()
    assert disk.startswith(f"# cache_dir {gateway.cache}: files can be written")
    for line, bucket in ((usage, "usage"), (error, "error"), (specimen, "specimen")):
        assert line.startswith(
            f"# s3.{bucket}_bucket {bucket}-b: keeps what is put, shows it again, refuses to replace an object"
        )
    fake.condition = "ignored"
    done = gateway.run("check-config", *gateway.with_config())
    assert "replaces objects, so that each key holds an id" in done.stdout


def test_check_config_of_a_host_that_takes_everything(fake: FakeS3, tmp_path: Path) -> None:
    """A host that answers 200 to every request is no store, and check-config says so of each bucket."""
    for operation in ("PutObject", "HeadObject", "CreateMultipartUpload", "UploadPart"):
        fake.pretended[operation] = ({}, "<html></html>")
    gateway = program(tmp_path, s3_settings(fake.endpoint))
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    assert done.stderr.count("something else has given it") == 3


def test_a_reserve_that_the_disk_has_not_is_a_fault(tmp_path: Path) -> None:
    """A disk that is smaller than its reserve is told by check-config and at the start, with what would be right."""
    gateway = program(tmp_path, {"spool": {"reserve": "8TiB"}})
    done = gateway.run("check-config", "--local", str(tmp_path / "data"), *gateway.with_config())
    assert done.returncode == 2
    assert re.search(r"spool\.reserve: 8388608 MiB .* nothing could be received; set it to at most \d+MiB", done.stderr)
    with running(tmp_path / "running", {"spool": {"reserve": "8TiB"}}) as started:
        (line,) = started.events("disk too small")
        assert line["level"] == "error"
        assert line["reason"] in done.stderr.replace(str(tmp_path / "data"), "").strip() or "8388608 MiB" in line["reason"]


# --- as the service --------------------------------------------------------------------------------------------------


def systemd(folder: Path, *lines: str) -> str:
    """Give a PATH whose systemctl says this of the unit."""
    folder.mkdir()
    told = "\n".join(("LoadState=loaded", *lines))
    (folder / "systemctl").write_text(f"#!/bin/sh\ncat <<'EOF'\n{told}\nEOF\n")
    (folder / "systemctl").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_check_config_as_the_service(fake: FakeS3, tmp_path: Path) -> None:
    """With --as-service the keys of the unit's environment file count, and those of the one who asks do not."""
    settings = s3_settings(fake.endpoint)
    del settings["aws"]["access_key_id"], settings["aws"]["secret_access_key"]
    (tmp_path / "environment").write_text('# keys\nAWS_ACCESS_KEY_ID = of-the-service\nAWS_SECRET_ACCESS_KEY="a \\"b"\n; end\n')
    user = pwd.getpwuid(os.geteuid()).pw_name
    path = systemd(
        tmp_path / "bin",
        f"User={user}",
        "Environment=PORT=8080 LIGHTFILE6_LIMITS_BODY_TIMEOUT=7s",
        f"EnvironmentFiles={tmp_path}/environment (ignore_errors=no)",
        "EnvironmentFiles=/nowhere (ignore_errors=yes)",
    )
    gateway = program(
        tmp_path, settings, PATH=path, AWS_ACCESS_KEY_ID="mine", AWS_SECRET_ACCESS_KEY="m", LIGHTFILE6_LOG_LEVEL="x"
    )
    done = gateway.run("check-config", "--as-service", *gateway.with_config())
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["limits"]["body_timeout"] == "7s"
    assert {re.findall(r"Credential=([^/]+)", request.headers["authorization"])[0] for request in fake.requests} == {
        "of-the-service"
    }


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["User=no-such-user-here"], "there is no user no-such-user-here"),
        (["User=root", "EnvironmentFiles=/nowhere (ignore_errors=no)"], "the environment file /nowhere"),
    ],
)
def test_a_service_that_is_not_there(lines: list[str], said: str, tmp_path: Path) -> None:
    """What keeps the check from being the service's is one line and exit code 1."""
    gateway = program(tmp_path, {}, PATH=systemd(tmp_path / "bin", *lines))
    done = gateway.run("check-config", "--as-service", *gateway.with_config())
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert said in done.stderr


# --- signals -----------------------------------------------------------------------------------------------------


def test_a_signal_in_the_middle_of_a_callback_is_not_lost() -> None:
    """A signal before the gateway serves ends it wherever it comes, even where an exception would be told and forgotten."""
    script = """
import os, signal, weakref
from gateway.cli import main
from gateway.cli import commands
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
def run(_):
    global thing
    del thing
    return 0
commands.run = run
main.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (3, f"{PROGRAM}: stopped by a signal before it served\n")
