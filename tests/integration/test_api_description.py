"""docs/openapi.yml: it says what the gateway does, and requests made from it bring nothing about that it does not say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from gateway.web.responses import STATUSES
from testkit import CHECKOUT
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.running import running

DESCRIPTION = CHECKOUT / "docs" / "openapi.yml"
# What the table of routes and a defect are answered with, beside the table of errors.
OTHER_CODES = {"not_found", "method_not_allowed", "internal"}
EXAMPLES = 40


def test_requests_made_from_the_description_are_answered_as_it_says(tmp_path: Path) -> None:
    """Valid, odd and broken requests of every kind get a status, headers and a body that the description names."""
    with running(tmp_path) as gateway:
        schemathesis = Path(sys.executable).with_name("schemathesis")
        done = subprocess.run(
            [schemathesis, "run", DESCRIPTION, f"--url={gateway.base_url}", f"--max-examples={EXAMPLES}", "--no-color"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300 * TIMEOUT_FACTOR,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert "12 passed" in done.stdout
        assert gateway.events("defect") == []
        assert gateway.stop() == 0


def test_the_description_knows_every_error() -> None:
    """Every status and every code of an error is described, and no other."""
    described: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())
    answers = {int(status) for status in described["paths"]["/usage"]["put"]["responses"]}
    assert answers == {204, 500, *(status for _, status, _ in STATUSES)}
    codes = described["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    assert set(codes) == OTHER_CODES | {code for _, _, code in STATUSES}


def test_the_description_knows_every_request(tmp_path: Path) -> None:
    """Every path and method of the description is answered, and `Allow` names no method that it does not have."""
    described: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())
    with running(tmp_path) as gateway:
        assert gateway.get("/").status == 404
        for path, operations in described["paths"].items():
            allowed = gateway.request("DELETE", path).headers["allow"]
            assert sorted(allowed.replace(" ", "").split(",")) == sorted(method.upper() for method in operations)
