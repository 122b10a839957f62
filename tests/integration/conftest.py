"""What the tests of the whole program may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testkit.gateway_process import Gateway, MakeGateway


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[MakeGateway]:
    """Give what makes gateways from settings, none of them started; all are gone when the test ends."""
    made: list[Gateway] = []

    def make(settings: Mapping[str, Any], *, folder: str = "gateway", **environment: str) -> Gateway:
        made.append(Gateway(tmp_path / folder, settings, environment))
        return made[-1]

    yield make
    for gateway in made:
        gateway.kill()
        # Shown by pytest where the test failed.
        for log in sorted(gateway.folder.glob("gateway.*.log")):
            sys.stdout.write(f"--- {log}\n{log.read_text('utf-8', 'replace')[-6000:]}\n")
