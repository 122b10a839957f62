"""Servers that small reports are put to: each is started, warmed, loaded, checked and ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cores import Cores, every_core
from benchmarks.gateway_process import Gateway
from benchmarks.load import Generator, Load, cpu_seconds
from benchmarks.peers import nginx, yardstick
from benchmarks.settings import Peer, Wrong

WARM_SECONDS = 1.0
GATEWAY = "gateway (synced)"
NGINX = "nginx WebDAV PUT (not synced)"
YARDSTICK = "aiohttp that only reads the body (keeps nothing)"


@dataclass(frozen=True, slots=True)
class Setup:
    """How a contestant is run.

    Attributes:
        directory: for what it writes.
        seconds: of load, after the warming.
        cores: that the server stays on.
    """

    directory: Path
    seconds: float
    cores: Cores


def load_gateway(setup: Setup, generator: Generator, variables: Mapping[str, str] | None = None) -> Load:
    """Load a gateway with its log in a file, and count the lines in its objects."""
    with Gateway(setup.directory / "gateway", variables, cores=setup.cores) as gateway:
        load, answered, in_flight = warm_and_load(generator, gateway.url("/usage"), setup.seconds, gateway.pid)
        gateway.stop()
        check_count(gateway.delivered_lines(), answered, in_flight)
        return load


def load_nginx(setup: Setup, generator: Generator) -> Load:
    """Load an nginx, and count its files; the generator has to ask for other names."""
    directory = setup.directory / "nginx"
    with nginx(directory, setup.cores) as server:
        load, answered, in_flight = warm_and_load(generator, server.url, setup.seconds, server.pid)
        check_count(sum(1 for _ in (directory / "files").iterdir()), answered, in_flight)
        return load


def load_yardstick(setup: Setup, generator: Generator) -> Load:
    """Load the yardstick, of which nothing can be checked but its answers."""
    with yardstick(setup.cores) as server:
        return warm_and_load(generator, server.url, setup.seconds, server.pid)[0]


def load_peer(peer: Peer, generator: Generator, seconds: float) -> Load:
    """Load a server that is not ours; on which cores it runs is its owner's matter."""
    return warm_and_load(generator, peer.url, seconds, None)[0]


def warm_and_load(generator: Generator, url: str, seconds: float, pid: int | None) -> tuple[Load, int, int]:
    """The load after the warming; how many requests were answered in both, and how many may have come in besides."""
    warm = generator.put(url, WARM_SECONDS)
    before = cpu_seconds(pid) if pid else 0.0
    load = generator.put(url, seconds)
    # A disk may hold up a whole second of warming; a figure it may not.
    if not load.requests:
        raise Wrong(f"not one request to {url} was answered within {seconds:g} seconds")
    if pid:
        load = replace(load, cpu_us=(cpu_seconds(pid) - before) / load.requests * 1e6)
    return load, warm.requests + load.requests, warm.in_flight + load.in_flight


def check_count(found: int, answered: int, in_flight: int) -> None:
    """Every report that was acknowledged was kept, once; those in flight may be there as well."""
    if not answered <= found <= answered + in_flight:
        raise Wrong(f"{answered} reports were acknowledged, {in_flight} more may have come in, and {found} were kept")


def on_all_cores(setup: Setup) -> Setup:
    """The same, on every core."""
    return replace(setup, cores=every_core())
