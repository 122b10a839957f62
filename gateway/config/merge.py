"""What the sources of the configuration have said so far."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gateway.config.schema import ENVIRONMENT, KEYS, SECTIONS, Config, Key


class Draft:
    """What the sources have said so far.

    Attributes:
        faults: one sentence each, beginning with the path of the key or the name of the variable.
        values: what was read, by path.
        labels: which name a fault of this path begins with, where it is not the path.
        unclear: the paths of which nobody knows the value that was meant.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.values: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.unclear: set[str] = set()

    def put(self, path: str, given: object, label: str = "") -> None:
        """Read one value over what was there before; None leaves that as it is."""
        row = KEYS.get(path)
        if row is None:
            self.faults.append(f"{path}: is not a known key{hint(path, [*KEYS, *SECTIONS])}.")
        elif given is not None:
            self.labels[path] = label or path
            try:
                self.values[path] = row.kind.read(given)
            except ValueError as error:
                self.fault(path, f"{error}; it must be {row.kind.wants}{_sample(row)}.")

    def fault(self, path: str, sentence: str) -> None:
        """Note what is wrong with the value at a known path."""
        self.faults.append(f"{self.labels.get(path, path)}: {sentence}")
        self.unclear.add(path)

    def config(self) -> Config:
        """Return the records with what was read so far."""
        config = Config()
        for path, value in self.values.items():
            section, name = KEYS[path].split()
            change = {section: replace(getattr(config, section), **{name: value})} if section else {name: value}
            config = replace(config, **change)
        return config

    def check(self, conflicts: Iterable[tuple[tuple[str, ...], str]]) -> None:
        """Note the conflicts, but for those that may only follow from a fault that was told already."""
        for paths, sentence in conflicts:
            if self.unclear.isdisjoint(paths):
                self.faults.append(f"{self.labels.get(paths[0], paths[0])}: {sentence}.")


def _sample(row: Key) -> str:
    shown = row.kind.show(row.default)
    return f", such as {shown}" if shown and row.kind.name not in {"flag", "choice"} else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Name the nearest known name: the one with the same last part, else the one that looks most alike."""
    plain = name.removeprefix(ENVIRONMENT).lower().replace("-", "_")
    spelt = {other.removeprefix(ENVIRONMENT).lower(): other for other in known}
    same = [other for other in spelt if other.rpartition(".")[2] == plain.rpartition(".")[2]]
    near = same or difflib.get_close_matches(plain, spelt, n=1, cutoff=0.5)
    return f"; the nearest is {spelt[near[0]]}" if near else "; config.yml.example lists them all"


def shown_name(given: str) -> str:
    """Cut a name where no name goes on: in {secret_access_key:abc} a missing space made the secret a part of it."""
    plain = re.match(r"[\w.-]{0,60}", given, re.ASCII)
    return given if plain and plain[0] == given else f"{plain[0] if plain else ''}…"
