"""Frozen records out of plain data, read strictly: every key must be known, there, and of its kind.

A record is a dataclass. What a field holds stands in its metadata (`kind`, see `key`) or in its annotation: a record, a
`tuple` of what its items are, or `Annotated[…, Kind]`. All faults are reported together, each with its path.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, cast

from gateway.config.tree import Fault, shown_name, tree_of
from gateway.config.values import Kind, what

Record = TypeVar("Record")
T = TypeVar("T")


class Faults(ValueError):
    """Several things are wrong within one value.

    Attributes:
        faults: each with its path below that of the value.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{path}: {sentence}" for path, sentence in faults))
        self.faults = faults


def key(default: T, kind: Kind, why: str) -> T:
    """Declare a key: its default in the product, what it may hold, and one line for the operator."""
    declared: T = dataclasses.field(default=default, repr=not kind.secret, metadata={"kind": kind, "why": why})
    return declared


def read_record(kind: type[Record], given: object, faults: list[Fault], path: str = "", **known: object) -> Record | None:
    """Read a mapping into a record.

    Args:
        kind: the dataclass.
        given: what YAML gave.
        faults: what is wrong with it is added here, and then there is no record.
        path: of the value.
        known: fields that are not among the keys.
    """
    if not isinstance(given, Mapping):
        faults.append((path, f"is {what(given)}; it must be a section with keys of its own."))
        return None
    before = len(faults)
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {each.name: each for each in dataclasses.fields(cast("Any", kind)) if each.name not in known}
    unknown = [str(name) for name in given if name not in fields]
    free = [each for each in fields if each not in given]
    hints_of = {name: nearest(name, free) or nearest(name, fields) for name in unknown}
    faults += [(_below(path, shown_name(name)), f"is not a known key{hint}.") for name, hint in hints_of.items()]
    values: dict[str, object] = dict(known)
    for name, field in fields.items():
        wanted = field.metadata.get("kind") or hints[name]
        is_optional = field.default is not dataclasses.MISSING
        if given.get(name) is not None or (name in given and not is_optional):
            values[name] = read_value(wanted, given[name], faults, _below(path, name))
        elif not is_optional and nearest(name, [name]) not in hints_of.values():
            # A mistyped key is one fault, not two.
            faults.append((_below(path, name), f"is missing; it must be {wants(wanted)}."))
    return kind(**values) if len(faults) == before else None


def read_value(wanted: Any, given: object, faults: list[Fault], path: str) -> object:
    """Read one value as `read_record` reads a record; what is returned beside a fault means nothing."""
    if typing.get_origin(wanted) is tuple:
        if not isinstance(given, list):
            faults.append((path, f"is {what(given)}; it must be a list."))
            return None
        inner = typing.get_args(wanted)[0]
        return tuple(read_value(inner, each, faults, f"{path}[{at}]") for at, each in enumerate(given))
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return read_record(wanted, given, faults, path)
    kind = wanted if isinstance(wanted, Kind) else _kind_of(wanted)
    try:
        return kind.read(given)
    except Faults as error:
        faults += [(_below(path, inner), sentence) for inner, sentence in error.faults]
    except ValueError as error:
        faults.append((path, f"{error}; it must be {kind.wants}."))
    return None


def records(of: type[Record], name: Kind) -> Kind:
    """Make a kind for a mapping of names to records, kept as a tuple in which each has its `name`.

    Args:
        of: the record, with a field `name` that is not among its keys.
        name: what a name must be.
    """

    def read(value: object) -> tuple[Record, ...]:
        if not isinstance(value, Mapping):
            raise ValueError(f"is {what(value)}")
        faults: list[Fault] = []
        found = []
        for each, inner in value.items():
            try:
                name.read(each)
            except ValueError as error:
                faults.append((shown_name(str(each)), f"{error}; it must be {name.wants}."))
                continue
            found.append(read_record(of, {} if inner is None else inner, faults, str(each), name=each))
        if faults:
            raise Faults(faults)
        return tuple(each for each in found if each is not None)

    def show(value: tuple[Any, ...]) -> object:
        return {each.name: shown(each) for each in value}

    return Kind("records", "names with a section of keys each", read, show=show, from_text=_yaml_of)


def shown(record: Any) -> dict[str, object]:
    """What was given of a record of optional keys, as YAML should print it."""
    fields = [each for each in dataclasses.fields(record) if "kind" in each.metadata]
    given = {each.name: (each, getattr(record, each.name)) for each in fields}
    return {name: each.metadata["kind"].show(value) for name, (each, value) in given.items() if value != each.default}


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known name that is most like a wrong one: `; the nearest is prefix`, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; the nearest is {found[0]}" if found else ""


def _yaml_of(text: str) -> object:
    faults: list[Fault] = []
    tree = tree_of(text, faults, such_as="{name: {key: value}}")
    if faults:
        raise Faults(faults)
    return tree


def _kind_of(wanted: Any) -> Kind:
    if typing.get_origin(wanted) is Annotated:
        return cast("Kind", wanted.__metadata__[0])
    return TEXT


def wants(wanted: Any) -> str:
    """What would be right, to be read after "it must be"."""
    if isinstance(wanted, Kind) or typing.get_origin(wanted) is Annotated:
        return (wanted if isinstance(wanted, Kind) else _kind_of(wanted)).wants
    if typing.get_origin(wanted) is tuple:
        return "a list"
    return "a section with keys of its own" if dataclasses.is_dataclass(wanted) else TEXT.wants


def _read_line(value: object) -> str:
    if value is None:
        raise ValueError(f"is {what(value)}")
    if not isinstance(value, str):
        # YAML takes 3.10 for the number 3.1, so that a version without quotes would silently be another one.
        raise ValueError(f"is {what(value)} unless it is put in quotes")
    if not re.fullmatch(r".+", value):
        raise ValueError("is empty, or more than one line")
    return value


TEXT = Kind("text", "a line of text", _read_line)


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
