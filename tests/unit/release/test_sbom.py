"""What the program is made of, as a CycloneDX document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.model.bom import Bom

from release import sbom
from release.errors import ReleaseError
from testkit import CHECKOUT
from testkit.release import Checkout, checkout

__all__ = ["checkout"]


def read(checkout: Checkout, *, with_interpreter: bool = True) -> dict[str, Any]:
    """The document as data."""
    found: dict[str, Any] = json.loads(sbom.document(checkout.plan("1.2.3"), with_interpreter=with_interpreter))
    return found


def test_what_is_built_in_is_listed(checkout: Checkout) -> None:
    """Every locked package that this interpreter gets on Linux is listed, others and the build backend are not."""
    found = read(checkout)
    assert sorted(part["purl"] for part in found["components"]) == [
        "pkg:generic/cpython@3.13.18",
        "pkg:pypi/aiohttp@3.14.5",
        "pkg:pypi/uvloop@0.23.0",
    ]


def test_the_program_is_made_of_them(checkout: Checkout) -> None:
    """The document is about the program, which depends on every part of it."""
    found = read(checkout)
    program = found["metadata"]["component"]
    assert (program["name"], program["version"], program["type"]) == ("lightfile6-insights-gateway", "1.2.3", "application")
    (edges,) = [edge for edge in found["dependencies"] if edge["ref"] == program["bom-ref"]]
    assert sorted(edges["dependsOn"]) == sorted(part["bom-ref"] for part in found["components"])


def test_a_snapshot_names_no_interpreter(checkout: Checkout) -> None:
    """A snapshot is frozen with whatever interpreter is there, so that none is listed."""
    assert "cpython" not in json.dumps(read(checkout, with_interpreter=False))


def test_it_can_be_read_back(checkout: Checkout) -> None:
    """The library that knows the format reads the document."""
    bom = Bom.from_json(read(checkout))  # type: ignore[attr-defined]
    assert len(bom.components) == 3


def test_the_same_lock_gives_the_same_bytes(checkout: Checkout) -> None:
    """Two documents of one commit are the same, and one of another lock has another number."""
    first = sbom.document(checkout.plan("1.2.3"), with_interpreter=True)
    assert sbom.document(checkout.plan("1.2.3"), with_interpreter=True) == first
    lock = checkout.root / "requirements.lock"
    lock.write_text(lock.read_text().replace("3.14.5", "3.14.6"))
    assert read(checkout)["serialNumber"] != json.loads(first)["serialNumber"]


def test_the_lock_of_this_checkout_is_read() -> None:
    """Every package of the lock file of this checkout is understood."""
    names = {part.name for part in sbom.packages((CHECKOUT / "requirements.lock").read_text(), "3.13.1")}
    assert {"aiohttp", "aiobotocore", "uvloop", "orjson"} <= names
    assert "flit-core" not in names


@pytest.mark.parametrize("line", ["aiohttp>=3", "aiohttp", "aiohttp==3.1,<4", "-r other.txt"])
def test_a_line_without_one_version_is_told(line: str) -> None:
    """A lock file with a line that pins nothing is an error that quotes the line."""
    with pytest.raises(ReleaseError, match="names no single version"):
        list(sbom.packages(f"{line}\n", "3.13.1"))
