"""What the sources of the configuration have said so far, each over the one before."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.config.records import Faults
from gateway.config.schema import ENVIRONMENT, KEYS, SECTIONS, Config, Key
from gateway.config.tree import Fault, read_tree, shown_name


class Sources:
    """What the sources have said so far.

    Attributes:
        faults: one sentence each, beginning with the path of the key or the name of the variable.
        values: what was read, by path.
        labels: which name a fault of this path begins with, where it is not the path.
        given: the paths that a source gave a value, and not only a default of the way it is started.
        unclear: the paths of which nobody knows the value that was meant.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.values: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.given: set[str] = set()
        self.unclear: set[str] = set()

    def put_file(self, file: Path, *, required: bool) -> None:
        """Read what a file says; a missing file that is not required says nothing."""
        faults: list[Fault] = []
        try:
            missing = "write one after config.yml.example, or name another with -c" if required else None
            tree = read_tree(file, faults, such_as="cache_dir: /data", missing=missing)
        except ValueError as error:
            self.faults.append(f"{file}: {error}.")
            self.unclear.update(KEYS)
            return
        self.faults += [f"{path}: {sentence}" for path, sentence in faults]
        for name, given in tree.items():
            if name not in SECTIONS:
                self.put(name, given)
            elif isinstance(given, dict):
                for key, value in given.items():
                    self.put(f"{name}.{key}", value)
            elif given is not None:
                self.faults.append(f"{name}: is a value; it must be a section with keys of its own.")
                self.unclear.update(path for path, row in KEYS.items() if row.split()[0] == name)

    def put(self, path: str, given: object, label: str = "") -> None:
        """Read one value over what was there before; None leaves that as it is."""
        if given is not None or path not in KEYS:
            self._read(path, lambda row: row.kind.read(given), label)

    def put_defaults(self, texts: Mapping[str, str]) -> None:
        """Begin with other defaults than the records have."""
        for path, text in texts.items():
            self.values[path] = KEYS[path].kind.read(KEYS[path].kind.from_text(text))

    def put_text(self, path: str, text: str, label: str = "") -> None:
        """Read one value as the environment or a flag gives it."""
        self._read(path, lambda row: row.kind.read(row.kind.from_text(text)), label)

    def _read(self, path: str, read: Callable[[Key], object], label: str) -> None:
        row = KEYS.get(path)
        if row is None:
            self.faults.append(f"{_shown_path(path)}: is not a known key{hint(path, [*KEYS, *SECTIONS])}.")
            return
        self.labels[path] = label or path
        self.given.add(path)
        try:
            self.values[path] = read(row)
        except Faults as error:
            for below, sentence in error.faults:
                self.faults.append(f"{self.label(path)}.{below}: {sentence}")
            self.unclear.add(path)
        except ValueError as error:
            self.fault(path, f"{error}; it must be {row.kind.wants}{_sample(row)}.")

    def label(self, path: str) -> str:
        """The name by which a fault of the value at a path is reported: the path, or the variable that gave it."""
        above, _, below = path.partition(".")
        if above in KEYS and below:
            return f"{self.labels.get(above, above)}.{below}"
        return self.labels.get(path, path)

    def fault(self, path: str, sentence: str) -> None:
        """Note what is wrong with the value at a known path."""
        self.faults.append(f"{self.label(path)}: {sentence}")
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
        """Note the conflicts, but for those that may only follow from a fault that was reported already."""
        for paths, sentence in conflicts:
            if self.unclear.isdisjoint(paths) and self.unclear.isdisjoint(path.partition(".")[0] for path in paths):
                self.faults.append(f"{self.label(paths[0])}: {sentence}.")


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


def _shown_path(path: str) -> str:
    return ".".join(shown_name(name) for name in path.split("."))
