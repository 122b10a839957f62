"""Whether what was frozen is of the commit that is checked out: an image is not made of yesterday's program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.core.build_info import UNKNOWN, Version
from image.frozen import state

NOW = Version("1.2.3+4.gabcdef0", "abcdef0")


@pytest.mark.parametrize(
    ("frozen", "checkout", "expected"),
    [
        (NOW, NOW, "yes"),
        (Version("1.2.3+4.gabcdef0.dirty", "abcdef0"), Version("1.2.3+4.gabcdef0.dirty", "abcdef0"), "changed"),
        (Version("1.2.3+4.gabcdef0.dirty", "abcdef0"), NOW, "no"),
        (Version("1.2.3", "abcdef1"), NOW, "no"),
        (NOW, Version("0.0.0", UNKNOWN), "yes"),
    ],
)
def test_what_is_frozen_is_compared_with_the_checkout(tmp_path: Path, frozen: Version, checkout: Version, expected: str) -> None:
    """By number and commit; where there is no git, what is there is used."""
    data = tmp_path / "_internal" / "gateway"
    data.mkdir(parents=True)
    (data / "version.json").write_text(json.dumps({"number": frozen.number, "commit": frozen.commit, "built": ""}))
    assert state(tmp_path, checkout) == expected


def test_nothing_frozen_is_not_current(tmp_path: Path) -> None:
    """As in a fresh checkout."""
    assert state(tmp_path, NOW) == "no"
