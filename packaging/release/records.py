"""Frozen records out of plain data, read strictly: every key must be known, there, and of its kind."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True)
class Must:
    """What a text must match; `wants` says so to a person."""

    pattern: str
    wants: str


def read_record(kind: type[Record], given: object, faults: list[str], path: str = "") -> Record | None:
    """Read a mapping into a record; what is wrong with it becomes lines in `faults`, and then there is no record.

    A field is a text, a record, or a tuple of either.
    """
    if not isinstance(given, Mapping):
        faults.append(f"{path or 'the file'}: must hold keys with values, not {_shown(given)}.")
        return None
    before = len(faults)
    fields = typing.get_type_hints(kind, include_extras=True)
    free = [name for name in fields if name not in given]
    unknown = {_below(path, name): nearest(str(name), free) for name in given if name not in fields}
    faults += [f"{name}: is no key{hint}." for name, hint in unknown.items()]
    values: dict[str, object] = {}
    for name, wanted in fields.items():
        if name in given:
            values[name] = _value(wanted, given[name], faults, _below(path, name))
        elif not any(f"mean {name}?" in hint for hint in unknown.values()):
            # A mistyped key is one fault, not two.
            faults.append(f"{_below(path, name)}: is missing.")
    return kind(**values) if len(faults) == before else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is most like a wrong one: ` (did you mean image?)`, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _value(kind: Any, given: object, faults: list[str], path: str) -> object:
    if typing.get_origin(kind) is tuple:
        if not isinstance(given, list):
            faults.append(f"{path}: must be a list, not {_shown(given)}.")
            return None
        inner = typing.get_args(kind)[0]
        return tuple(_value(inner, one, faults, f"{path}[{place}]") for place, one in enumerate(given))
    if dataclasses.is_dataclass(kind):
        return read_record(typing.cast("type[object]", kind), given, faults, path)
    must = kind.__metadata__[0] if typing.get_origin(kind) is Annotated else Must(".+", "a line of text")
    if not isinstance(given, str):
        # YAML takes 3.10 for the number 3.1, so that a version without quotes would silently be another one.
        faults.append(f"{path}: must be text, not {_shown(given)}; put it in quotes.")
    elif not re.fullmatch(must.pattern, given):
        faults.append(f"{path}: {given!r} must be {must.wants}.")
    return given


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _shown(given: object) -> str:
    match given:
        case None:
            return "nothing"
        case Mapping():
            return "keys with values"
        case list():
            return "a list"
        case _:
            return repr(given)
