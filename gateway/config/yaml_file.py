"""The configuration in a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from gateway.config.merge import Draft, shown_name
from gateway.config.schema import KEYS, SECTIONS
from gateway.config.values import MIB, format_size


def take_file(draft: Draft, file: Path, *, required: bool) -> None:
    """Put what the file says into the draft, its faults too; a missing file that is not required says nothing."""
    try:
        # In Python, not in C: libyaml's loader overruns the stack of the process where brackets nest deeply.
        loader = yaml.SafeLoader(_content(file, required=required))
        root = loader.get_single_node()
        if root is None or root.tag == _NULL:
            return
        if not isinstance(root, yaml.MappingNode):
            raise ValueError("holds no keys; it must hold lines such as cache_dir: /data")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        draft.faults.append(f"{file}: {_reason(error)}.")
        draft.unclear.update(KEYS)
        return
    for name, node in _entries(draft, root, ""):
        given = _plain(loader, node)
        if name not in SECTIONS:
            draft.put(name, given)
        elif isinstance(node, yaml.MappingNode):
            for path, inner in _entries(draft, node, f"{name}."):
                draft.put(path, _plain(loader, inner))
        elif given is not None:
            draft.faults.append(f"{name}: is a value; it must be a section with keys of its own.")
            draft.unclear.update(path for path, row in KEYS.items() if row.split()[0] == name)


def _content(file: Path, *, required: bool) -> str:
    try:
        with file.open("rb") as source:
            content = source.read(MIB + 1)
    except FileNotFoundError:
        if required:
            raise
        return ""
    if len(content) > MIB:
        raise ValueError(f"is larger than {format_size(MIB)}; it must be a configuration")
    decoded = content.decode()
    if control := _CONTROL.search(decoded):
        raise ValueError(f"is not YAML at {_place(decoded[: control.start()])}: it has a control character")
    return decoded


_NULL: Final = "tag:yaml.org,2002:null"
_CONTROL: Final = yaml.SafeLoader.NON_PRINTABLE


def _reason(error: Exception) -> str:
    """Say why a file cannot be used, without quoting from it: the fault may be in the line that holds a secret."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 at {_place(error.object[: error.start].decode('utf-8', 'replace'))}; save it as UTF-8"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        return f"is not YAML{place}: " + re.sub(r"""(['"])(.*?)\1""", _without_names, problem)
    if isinstance(error, RecursionError):
        return "is not a configuration: it nests too deeply; sections hold plain values only"
    if isinstance(error, FileNotFoundError):
        return "does not exist; write one after config.yml.example, or name another with -c"
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def _without_names(quoted: re.Match[str]) -> str:
    # The parser quotes tokens such as '<block end>', single characters, and names out of the file.
    return quoted[0] if len(quoted[2]) <= 2 or quoted[2].startswith("<") else "…"


def _place(before: str) -> str:
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _entries(draft: Draft, node: yaml.MappingNode, above: str) -> Iterator[tuple[str, yaml.Node]]:
    """Yield path and value of each key, the first one only where a key is given more than once."""
    lines: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        given = name.value if isinstance(name, yaml.ScalarNode) else "?"
        path = above + shown_name(given)
        if given in lines:
            draft.faults.append(f"{path}: is given twice, in line {lines[given]} and line {line}; only one may stay.")
        elif "." in given:
            draft.faults.append(f"{path}: has a dot; a key must stand below its section.")
        else:
            lines[given] = line
            yield path, value


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """Return the value of a scalar or of a list of scalars; of anything deeper only the type, as no key takes one."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, each) if isinstance(each, yaml.ScalarNode) else [] for each in node.value]
    if isinstance(node, yaml.MappingNode):
        return {}
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Which of these is raised depends on what a value like 2020-13-45 or !!int x almost is.
        return object()
