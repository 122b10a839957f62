"""Two gateways on one directory, where the lock of the one is not seen by the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.confined import Confined
from reliability.disk.two_mounts import TwoMounts, unrecorded
from reliability.row import CannotRun

from gateway.spool.owner import WATCH_S
from testkit.buckets import Buckets
from testkit.deadlines import since, until
from testkit.gateway_process import Gateway, settings_for


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[TwoMounts]:
    """A directory that is mounted twice."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    made = TwoMounts(tmp_path / "mounts")
    try:
        made.__enter__()
    except CannotRun as error:
        pytest.skip(str(error))
    yield made
    made.__exit__(None, None, None)


@pytest.fixture
def pair(mounts: TwoMounts, buckets: Buckets, tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    """A gateway on each mount, not started."""
    made = []
    for number, mount in enumerate(mounts.mounts):
        settings = {**settings_for(buckets), "cache_dir": str(mount / "spool")}
        made.append(Confined(tmp_path / str(number), settings, mounts.prefix, cache=mounts.below / "spool"))
    yield made[0], made[1]
    for gateway in made:
        gateway.kill()


def test_the_second_is_refused(pair: tuple[Gateway, Gateway], buckets: Buckets) -> None:
    """It names the other one and does it no harm; when that has stopped it is let in at once, and delivers what is left."""
    first, second = pair
    first.start()
    assert first.put("/usage", b'{"n":1}') == 204
    second.launch()
    assert second.wait() == 1
    assert f"in use by another gateway, the one on {os.uname().nodename}" in second.said()
    assert first.put("/usage", b'{"n":2}') == 204
    assert first.stop() == 0
    begun = time.monotonic()
    second.start()
    assert since(begun) < WATCH_S + 3
    assert second.put("/usage", b'{"n":3}') == 204
    assert second.stop() == 0
    assert sorted(buckets.lines(buckets.usage)) == [b'{"n":1}', b'{"n":2}', b'{"n":3}']


def test_one_that_lost_its_record_stops(pair: tuple[Gateway, Gateway], mounts: TwoMounts, buckets: Buckets) -> None:
    """Where both run all the same, one of them finds the other's record in place of its own: 503 from then on, and why."""
    first, second = pair
    first.start()
    with unrecorded(mounts.below / "spool"):
        second.launch()
        until(lambda: second.events("listening"), "the second to start")
    second.port = int(second.events("listening")[0]["address"].rpartition(":")[2])
    until(lambda: first.events("cache_dir lost") or second.events("cache_dir lost"), "one of them to find the other's record")
    lost, kept = (first, second) if first.events("cache_dir lost") else (second, first)
    answer = lost.request("PUT", "/usage", b'{"n":1}', {"USER_TOKEN": "a"})
    assert answer.status == 503
    assert "was taken by another gateway" in answer.json()["error"]["message"]
    assert any("was taken by another gateway" in reason for reason in lost.get("/ready").json()["reasons"])
    assert kept.put("/usage", b'{"n":2}') == 204
    lost.stop()
    kept.stop()
    assert buckets.lines(buckets.usage) == [b'{"n":2}']
