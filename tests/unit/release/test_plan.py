"""What one release consists of: its version, its names, its tags."""

from __future__ import annotations

import pytest

from release.errors import ReleaseError
from testkit.release import Checkout, checkout

__all__ = ["checkout"]

NAME = "ghcr.io/somebody/lightfile6-insights-gateway"


@pytest.mark.parametrize(
    ("version", "tags"),
    [
        ("1.2.3", ("1.2.3", "1.2", "latest")),
        ("10.0.0", ("10.0.0", "10.0", "latest")),
        ("1.2.3-rc.1", ("1.2.3-rc.1",)),
        ("1.2.3+5.g0123456", ("1.2.3-5.g0123456",)),
        ("1.2.3+5.g0123456.dirty", ("1.2.3-5.g0123456.dirty",)),
        ("1.2.3-rc.1+5.g0123456", ("1.2.3-rc.1-5.g0123456",)),
    ],
)
def test_image_tags(checkout: Checkout, version: str, tags: tuple[str, ...]) -> None:
    """A release has the tags of its version, of its minor version, and `latest`; anything else that of its version only."""
    assert checkout.plan(version).image_tags == tags


def test_names(checkout: Checkout) -> None:
    """Files and images are named after project, version and target; the owner is written small."""
    plan = checkout.plan("1.2.3")
    target = plan.manifest.target("linux/arm64")
    assert plan.target_files([target]) == [
        "lightfile6-insights-gateway_1.2.3_linux_arm64.tar.gz",
        "lightfile6-insights-gateway_1.2.3_linux_arm64.deb",
    ]
    assert plan.sbom_name == "lightfile6-insights-gateway_1.2.3.cdx.json"
    assert plan.target_image(target) == f"{NAME}:1.2.3-arm64"
    assert plan.tag == "v1.2.3"


@pytest.mark.parametrize("version", ["1.2.3", "1.2.3-rc.1"])
def test_a_tagged_checkout_may_be_released(checkout: Checkout, version: str) -> None:
    """A version that a tag names is accepted."""
    checkout.plan(version).require_tag()


@pytest.mark.parametrize("version", ["1.2.3+1.g0123456", "1.2.3+0.g0123456.dirty", "0.0.0+22.g3680147", "0.0.0"])
def test_anything_else_may_not(checkout: Checkout, version: str) -> None:
    """A checkout ahead of its tag, a changed one, and one without any tag are refused."""
    with pytest.raises(ReleaseError, match=r"no tag names; release a clean checkout of a tag, or use --snapshot"):
        checkout.plan(version).require_tag()


def test_what_is_no_version_is_told(checkout: Checkout) -> None:
    """A version of another form is an error."""
    with pytest.raises(ReleaseError, match=r"'1\.2' is no version"):
        _ = checkout.plan("1.2").image_tags
