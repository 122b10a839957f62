"""What a release is declared to be: release.yml as frozen records."""

from __future__ import annotations

import dataclasses

import pytest

from release.errors import ReleaseError
from release.manifest_file import load
from testkit import CHECKOUT


def test_release_yml_is_sound() -> None:
    """release.yml of this checkout is without a fault."""
    assert load(CHECKOUT).project == "lightfile6-insights-gateway"


def test_a_target_is_found_by_its_platform() -> None:
    """A target knows its operating system and its architecture."""
    target = load(CHECKOUT).target("linux/arm64")
    assert (target.os, target.arch) == ("linux", "arm64")


def test_an_unknown_target_is_told() -> None:
    """A platform that is no target is an error that names the nearest one, and all others."""
    with pytest.raises(ReleaseError, match=r"linux/arm65 is no target.*the nearest is linux/arm64.*has linux/amd64, linux/arm64"):
        load(CHECKOUT).target("linux/arm65")


def test_records_are_frozen() -> None:
    """What was read cannot be changed."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(CHECKOUT).project = "other"  # type: ignore[misc]
