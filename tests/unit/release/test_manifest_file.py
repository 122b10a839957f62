"""Reads release.yml, and tells everything that is wrong with it."""

from __future__ import annotations

import pytest

from release.errors import ReleaseError
from release.manifest_file import load
from testkit.release import Checkout, checkout

__all__ = ["checkout"]

# What stands in release.yml, what is put in its place, and the one line that tells of it.
FAULTS = [
    ("project: lightfile6", "projekt: lightfile6", "projekt: is not a known key; the nearest is project."),
    ("project: ", "Project: ", "Project: is not a known key; the nearest is project."),
    ("    runner: ubuntu-24.04\n", "", "targets[0].runner: is missing; it must be the label of a runner, such as ubuntu-24.04."),
    ("    runner: ubuntu-24.04\n", "    runer: x\n", "targets[0].runer: is not a known key; the nearest is runner."),
    ("  glibc:", "  extra: 1\n  glibc:", "build.extra: is not a known key."),
    (
        'glibc: "2.28"',
        "glibc: 2.28",
        "build.glibc: is a number unless it is put in quotes; it must be a version of glibc, such as 2.28.",
    ),
    ('glibc: "2.28"', 'glibc: "old"', "build.glibc: 'old' is not right; it must be a version of glibc, such as 2.28."),
    (
        'python: "3.13.18"',
        'python: "3.13"',
        "build.python: '3.13' is not right; it must be a full version of CPython, such as 3.13.1.",
    ),
    (
        "platform: linux/arm64",
        "platform: windows/arm64",
        "targets[1].platform: 'windows/arm64' is not right; it must be linux/amd64 or linux/arm64.",
    ),
    ("platform: linux/arm64", "platform: linux/amd64", "targets: has linux/amd64 twice."),
    (
        "container: almalinux:8",
        "container: almalinux",
        "targets[0].container: 'almalinux' is not right; it must be an image with its tag, such as almalinux:8.",
    ),
    ("- format: deb", "- format: rpm", "packages[0].format: 'rpm' is not right; it must be deb."),
    ("- format: deb", "- deb", "packages[0]: is text; it must be a section with keys of its own."),
    ("  - format: deb", "  format: deb", "packages: is a section; it must be a list."),
    ("    - LICENSE", "    - LICENCE", "archive.files[0]: there is no file LICENCE."),
    ("    - LICENSE", "    - ../LICENSE", "archive.files[0]: '../LICENSE' is not right; it must be a path inside the checkout."),
    ("lock: requirements.lock", "lock: other.lock", "sbom.lock: there is no file other.lock."),
    (
        "{version}_{os}_{arch}",
        "{versoin}_{os}_{arch}",
        "archive.name: {versoin} is no placeholder; the nearest is version; there are {arch}, {os}, {project}, {version}.",
    ),
    (
        "{version}_{os}_{arch}",
        "{version}_{os}",
        "archive.name: must hold {arch}, or the archive of one target takes the place of another's.",
    ),
    ("{major}.{minor}", "{major", "image.stable_tags[0]: '{major' has a brace without its other half."),
    ("ghcr.io/{owner}", "ghcr.io/{project}", "image.name: {project} is no placeholder; there are {owner}."),
    (
        '    - "^Merge "',
        '    - "["',
        "changelog.exclude[0]: '[' must be a regular expression (unterminated character set at position 0).",
    ),
    ("checksums:\n  name: SHA256SUMS", "checksums: SHA256SUMS", "checksums: is text; it must be a section with keys of its own."),
    ("sbom:", "project: other\n\nsbom:", "project: is given twice, in line "),
    ("project:", "project: [", "is not YAML at line "),
]


@pytest.mark.parametrize(("stands", "instead", "told"), FAULTS, ids=[instead.strip() or "nothing" for _, instead, _ in FAULTS])
def test_a_fault_names_its_key(checkout: Checkout, stands: str, instead: str, told: str) -> None:
    """A key that is unknown, missing or of a wrong value is one line that names it, with the nearest known key."""
    path = checkout.root / "release.yml"
    text = path.read_text()
    assert stands in text
    path.write_text(text.replace(stands, instead, 1))
    with pytest.raises(ReleaseError) as caught:
        load(checkout.root)
    if told.endswith(" "):
        assert str(caught.value).startswith(f"release.yml: {told}")
        assert "\n" not in str(caught.value)
    else:
        assert str(caught.value) == f"release.yml: {told}"


def test_all_faults_are_told_together(checkout: Checkout) -> None:
    """Two faults give two lines."""
    path = checkout.root / "release.yml"
    path.write_text(path.read_text().replace('glibc: "2.28"', "glibc: 2").replace("- format: deb", "- format: rpm"))
    with pytest.raises(ReleaseError) as caught:
        load(checkout.root)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_file_is_told(checkout: Checkout) -> None:
    """A checkout without release.yml is an error of one line."""
    (checkout.root / "release.yml").unlink()
    with pytest.raises(ReleaseError, match=r"^release.yml: does not exist; "):
        load(checkout.root)


def test_an_empty_file_is_told(checkout: Checkout) -> None:
    """An empty release.yml is an error of one line."""
    (checkout.root / "release.yml").write_text("")
    with pytest.raises(ReleaseError, match=r"^release.yml: project: is missing; "):
        load(checkout.root)
