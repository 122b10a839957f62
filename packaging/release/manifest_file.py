"""Reads release.yml, and tells everything that is wrong with it."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from release.errors import ReleaseError
from release.manifest import FILE, Image, Manifest
from release.records import nearest, read_record

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
    try:
        text = (root / FILE).read_text("utf-8")
        given = yaml.load(text, Loader=_Strict)  # noqa: S506 (it is a SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReleaseError(f"{FILE}: cannot be read: {' '.join(str(error).split())}.") from error
    faults: list[str] = []
    manifest = read_record(Manifest, given, faults)
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


class _Strict(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; plain YAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(name, deep=True) for name, _ in node.value]
        for place, name in enumerate(keys):
            if name in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.YAMLError(f"line {mark.line + 1} has {name} for the second time")
        return super().construct_mapping(node, deep)
