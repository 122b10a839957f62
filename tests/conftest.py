"""What every test may ask for, and what counts as a failure."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers import every, versitygw
from testkit.servers.minio import Minio, MinioProcess, NoDockerError, binary, in_container
from testkit.servers.process import Server, ServerError, ServerProcess
from testkit.servers.source import cache_folder
from testkit.servers.strict_s3 import ACCESS_KEY, SECRET_KEY, strict_s3
from testkit.servers.versitygw import VersitygwProcess

HOW_MINIO_RAN = pytest.StashKey[str]()

# No test times anything: a property holds however slow the machine is.
settings.register_profile("untimed", parent=settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("untimed")

# Programs inherit that a signal is ignored, as after `nohup scripts/test`, but not a handler: the gateways of the tests
# begin with what a service manager gives them.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


# --- what a test may ask for -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def timeout_factor() -> float:
    """Give what every deadline of a test is multiplied by; above 1 on slow machines."""
    return TIMEOUT_FACTOR


@pytest.fixture(scope="session")
def minio_binary(pytestconfig: pytest.Config) -> Path:
    """Give the MinIO that all tests run, built from source the first time."""
    return binary(cache=cache_folder(), say=lambda text: _say(pytestconfig, text))


@pytest.fixture(scope="session")
def minio(minio_binary: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Minio]:
    """Run one MinIO for all tests: in a container, or as a plain process where no Docker daemon can run it."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(in_container(minio_binary))
            pytestconfig.stash[HOW_MINIO_RAN] = "MinIO ran in a container."
        except NoDockerError as reason:
            folder = tmp_path_factory.mktemp("minio")
            running = _started(stack, MinioProcess(minio_binary, folder), folder).minio
            pytestconfig.stash[HOW_MINIO_RAN] = f"MinIO ran as a plain process, NOT in a container: {reason}"
        yield running


@pytest.fixture
def own_minio(minio_binary: Path, tmp_path: Path) -> Iterator[MinioProcess]:
    """Run a MinIO of the test's own, which it may stop and start again; its port and its data stay."""
    with ExitStack() as stack:
        yield _started(stack, MinioProcess(minio_binary, tmp_path / "minio"), tmp_path / "minio")


@pytest.fixture(scope="session")
def versity(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Server]:
    """Run one versitygw for all tests; where it cannot be, they are skipped and say why."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("versitygw")
        try:
            program = versitygw.binary(cache=cache_folder(), say=lambda text: _say(pytestconfig, text))
            started = _started(stack, VersitygwProcess(program, folder), folder)
        except ServerError as error:
            pytest.skip(f"no versitygw: {error}")
        yield started.server


@pytest.fixture(scope="session")
def strict_server() -> Iterator[Server]:
    """Run one S3 in memory for all tests that refuses what S3 documents as refused."""
    with strict_s3([]) as running:
        yield Server(running.endpoint, ACCESS_KEY, SECRET_KEY)


# The fixture that runs a server, by the name that a test is parametrized with.
SERVERS = {"minio": "minio", "versitygw": "versity", "strict": "strict_server"}


@pytest.fixture
def buckets_in(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Buckets]]:
    """Give what makes three fresh buckets in a server, which is named as in `SERVERS`."""
    made: list[Buckets] = []

    def make(server: str) -> Buckets:
        made.append(Buckets(request.getfixturevalue(SERVERS[server])))
        return made[-1]

    yield make
    for buckets in made:
        buckets.remove()
        buckets.close()


@pytest.fixture
def buckets(request: pytest.FixtureRequest, buckets_in: Callable[[str], Buckets]) -> Buckets:
    """Make three fresh buckets in the MinIO of all tests, or in the server that the test is parametrized with."""
    return buckets_in(getattr(request, "param", "minio"))


@pytest.fixture
def own_buckets(own_minio: MinioProcess) -> Iterator[Buckets]:
    """Make three fresh buckets in the test's own MinIO."""
    made = Buckets(own_minio.minio)
    yield made
    # They go with the data of that MinIO, which the test may have left stopped.
    made.close()


Process = TypeVar("Process", bound=ServerProcess)


def _started(stack: ExitStack, process: Process, folder: Path) -> Process:
    # pytest would keep the data of the last three runs, which may be large.
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    stack.callback(process.stop)
    process.start()
    return process


def _say(config: pytest.Config, text: str) -> None:
    """Print a line at once, past the capture of output: something long is about to happen."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        # A worker, whose output is the controller's.
        print(text, file=sys.__stderr__, flush=True)
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(text)


# --- which tests run ---------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of tests that need more servers than MinIO."""
    config.addinivalue_line("markers", f"{every.MARK}: needs a server that only `scripts/test --all` runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests on further servers unless they are wanted."""
    left_out = [] if every.WANTED else [item for item in items if item.get_closest_marker(every.MARK)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


# --- what counts as a failure ------------------------------------------------------------------------------------


def _forbidden_skips(config: pytest.Config) -> list[str]:
    """Tell which skips count as failures: under CI all of them, since everything the tests need can be had there."""
    if os.environ.get("CI", "").lower() not in {"true", "1"}:
        return []
    reporter = config.pluginmanager.getplugin("terminalreporter")
    return [f"{report.nodeid}: {_reason(report.longrepr)}" for report in reporter.stats.get("skipped", [])]


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from a worker how its MinIO ran."""
    if (how := getattr(node, "workeroutput", {}).get("minio")) is not None:
        node.config.stash[HOW_MINIO_RAN] = how


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a run fail in which a test was skipped under CI; of several processes the one that has all reports says so."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["minio"] = session.config.stash.get(HOW_MINIO_RAN, None)
        return
    if session.exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return
    # `twice.py` runs these once more; a run that has skipped what it must not has failed for good.
    if (file := os.environ.get("GATEWAY_TEST_FAILED")) and not _forbidden_skips(session.config):
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        reports = [*reporter.stats.get("failed", []), *reporter.stats.get("error", [])]
        Path(file).write_text("".join(f"{name}\n" for name in dict.fromkeys(report.nodeid for report in reports)), "utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say, above the closing line, how MinIO ran and what else failed."""
    if (how := config.stash.get(HOW_MINIO_RAN, None)) is not None:
        terminalreporter.section("MinIO")
        terminalreporter.line(how)
    if skips := _forbidden_skips(config):
        terminalreporter.section("skipped, which counts as failed under CI", red=True)
        for skip in skips:
            terminalreporter.line(skip)
    # scripts/test runs the other checks first and names here those that failed.
    if checks := os.environ.get("GATEWAY_CHECKS_FAILED", "").splitlines():
        terminalreporter.section("checks that failed before the tests", red=True)
        for check in checks:
            terminalreporter.line(check)
