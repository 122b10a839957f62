"""Reads release.yml, and tells everything that is wrong with it."""

from __future__ import annotations

import pytest

from release.errors import ReleaseError
from release.manifest_file import load
from testkit.release import Checkout, checkout

__all__ = ["checkout"]

# What stands in release.yml, what is put in its place, and the one line that tells of it.
FAULTS = [
    ("project: lightfile6", "projekt: lightfile6", "projekt: is no key (did you mean project?)."),
    ("project: ", "Project: ", "Project: is no key (did you mean project?)."),
    ("    runner: ubuntu-24.04\n", "", "targets[0].runner: is missing."),
    ("    runner: ubuntu-24.04\n", "    runer: x\n", "targets[0].runer: is no key (did you mean runner?)."),
    ("  glibc:", "  extra: 1\n  glibc:", "build.extra: is no key."),
    ('glibc: "2.28"', "glibc: 2.28", "build.glibc: must be text, not 2.28; put it in quotes."),
    ('glibc: "2.28"', 'glibc: "old"', "build.glibc: 'old' must be a version of glibc, such as 2.28."),
    ('python: "3.13.18"', 'python: "3.13"', "build.python: '3.13' must be a full version of CPython, such as 3.13.1."),
    (
        "platform: linux/arm64",
        "platform: windows/arm64",
        "targets[1].platform: 'windows/arm64' must be linux/amd64 or linux/arm64.",
    ),
    ("platform: linux/arm64", "platform: linux/amd64", "targets: has linux/amd64 twice."),
    (
        "container: almalinux:8",
        "container: almalinux",
        "targets[0].container: 'almalinux' must be an image with its tag, such as almalinux:8.",
    ),
    ("- format: deb", "- format: rpm", "packages[0].format: 'rpm' must be deb."),
    ("- format: deb", "- deb", "packages[0]: must hold keys with values, not 'deb'."),
    ("  - format: deb", "  format: deb", "packages: must be a list, not keys with values."),
    ("    - LICENSE", "    - LICENCE", "archive.files[0]: there is no file LICENCE."),
    ("    - LICENSE", "    - ../LICENSE", "archive.files[0]: '../LICENSE' must be a path inside the checkout."),
    ("lock: requirements.lock", "lock: other.lock", "sbom.lock: there is no file other.lock."),
    (
        "{version}_{os}_{arch}",
        "{versoin}_{os}_{arch}",
        "archive.name: {versoin} is no placeholder (did you mean version?); there are {arch}, {os}, {project}, {version}.",
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
    ("checksums:\n  name: SHA256SUMS", "checksums: SHA256SUMS", "checksums: must hold keys with values, not 'SHA256SUMS'."),
    ("sbom:", "project: other\n\nsbom:", "cannot be read: line"),
    ("project:", "project: [", "cannot be read:"),
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
    if told.startswith("cannot"):
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
    with pytest.raises(ReleaseError, match=r"^release.yml: cannot be read: .*No such file"):
        load(checkout.root)


def test_an_empty_file_is_told(checkout: Checkout) -> None:
    """An empty release.yml is an error of one line."""
    (checkout.root / "release.yml").write_text("")
    with pytest.raises(ReleaseError, match=r"^release.yml: the file: must hold keys with values, not nothing\.$"):
        load(checkout.root)
