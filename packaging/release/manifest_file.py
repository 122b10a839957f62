"""Reads release.yml, and reports everything that is wrong with it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

from gateway.config.records import nearest, read_record
from gateway.config.tree import Fault, read_tree
from release.errors import ReleaseError
from release.manifest import FILE, Image, Manifest

# What a name may be made of; the rest of the names of a release have no target.
NAME_FIELDS = frozenset({"project", "version"})
TARGET_FIELDS = NAME_FIELDS | {"os", "arch"}
TAG_FIELDS = frozenset({"version", "major", "minor"})
OWNER_FIELDS = frozenset({"owner"})


def load(root: Path) -> Manifest:
    """Read release.yml of a checkout.

    Raises:
        ReleaseError: something is wrong with it; each line of the text names a key.
    """
    found: list[Fault] = []
    try:
        given = read_tree(root / FILE, found, such_as="project: NAME", missing="it is a part of the sources")
    except ValueError as error:
        raise ReleaseError(f"{FILE}: {error}.") from error
    manifest = read_record(Manifest, given, found)
    faults = [f"{path}: {sentence}" for path, sentence in found]
    if manifest is not None:
        faults += [
            *_target_faults(manifest),
            *_template_faults(manifest),
            *_pattern_faults(manifest),
            *_file_faults(manifest, root),
        ]
    if manifest is None or faults:
        raise ReleaseError("\n".join(f"{FILE}: {fault}" for fault in faults))
    return manifest


def _target_faults(manifest: Manifest) -> Iterator[str]:
    platforms = [target.platform for target in manifest.targets]
    if not platforms:
        yield "targets: must have one at least."
    for name in sorted({name for name in platforms if platforms.count(name) > 1}):
        yield f"targets: has {name} twice."
    if len(platforms) > 1 and "{arch}" not in manifest.archive.name:
        yield "archive.name: must hold {arch}, or the archive of one target takes the place of another's."


def _template_faults(manifest: Manifest) -> Iterator[str]:
    if not manifest.image.tags:
        # The images of the targets are named after the first one.
        yield "image.tags: must have one at least."
    templates = [("archive.name", manifest.archive.name, TARGET_FIELDS), ("sbom.name", manifest.sbom.name, NAME_FIELDS)]
    templates += [("image.name", manifest.image.name, OWNER_FIELDS), *_tags(manifest.image)]
    for path, template, known in templates:
        try:
            used = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        except ValueError:
            yield f"{path}: {template!r} has a brace without its other half."
            continue
        offered = ", ".join(f"{{{name}}}" for name in sorted(known))
        for name in used:
            if name not in known:
                yield f"{path}: {{{name}}} is no placeholder{nearest(name, known)}; there are {offered}."


def _tags(image: Image) -> Iterator[tuple[str, str, frozenset[str]]]:
    for name, tags in (("tags", image.tags), ("stable_tags", image.stable_tags)):
        for place, tag in enumerate(tags):
            yield f"image.{name}[{place}]", tag, TAG_FIELDS


def _pattern_faults(manifest: Manifest) -> Iterator[str]:
    patterns = {f"changelog.exclude[{place}]": pattern for place, pattern in enumerate(manifest.changelog.exclude)}
    patterns |= {f"changelog.groups[{place}].pattern": group.pattern for place, group in enumerate(manifest.changelog.groups)}
    for path, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{path}: {pattern!r} must be a regular expression ({error})."


def _file_faults(manifest: Manifest, root: Path) -> Iterator[str]:
    files = {f"archive.files[{place}]": name for place, name in enumerate(manifest.archive.files)}
    files |= {"sbom.lock": manifest.sbom.lock, "changelog.file": manifest.changelog.file}
    for path, name in files.items():
        if not (root / name).is_file():
            yield f"{path}: there is no file {name}."
