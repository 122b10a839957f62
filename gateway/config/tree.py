"""YAML as a tree of plain values, read strictly: a key stands once, and nothing is quoted from the text in a message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.config.values import MIB, format_size

# The path of a value, as in `streams.crash.path`, and a sentence that says what is wrong with it and what would be right.
Fault = tuple[str, str]

MAX_BYTES: Final = MIB
_NULL: Final = "tag:yaml.org,2002:null"
_CONTROL: Final = yaml.SafeLoader.NON_PRINTABLE


def read_tree(file: Path, faults: list[Fault], *, such_as: str, missing: str | None) -> dict[str, Any]:
    """Read a file as a mapping of plain values, lists and mappings; `{}` for an empty one.

    Args:
        file: the YAML file.
        faults: what is wrong within it is added here.
        such_as: a line that it could hold.
        missing: what to do about a file that does not exist; None where that is as an empty one.

    Raises:
        ValueError: it cannot be read at all; says why, to be read after its name.
    """
    try:
        return tree_of(_text(file, required=missing is not None), faults, such_as=such_as)
    except UnicodeDecodeError as error:
        place = _place(error.object[: error.start].decode("utf-8", "replace"))
        raise ValueError(f"is not UTF-8 at {place}; save it as UTF-8") from error
    except FileNotFoundError as error:
        raise ValueError(f"does not exist; {missing}") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error


def tree_of(text: str, faults: list[Fault], *, such_as: str) -> dict[str, Any]:
    """Read a text as `read_tree` reads a file.

    Raises:
        ValueError: as there.
    """
    if control := _CONTROL.search(text):
        raise ValueError(f"is not YAML at {_place(text[: control.start()])}: it has a control character")
    try:
        # In Python, not in C: libyaml's loader overruns the stack of the process where brackets nest deeply.
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or root.tag == _NULL:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ValueError(f"holds no keys; it must hold lines such as {such_as}")
        return _Reader(loader, faults).mapping(root, "")
    except yaml.MarkedYAMLError as error:
        raise ValueError(_not_yaml(error)) from error
    except yaml.YAMLError as error:
        raise ValueError("is not YAML") from error
    except RecursionError as error:
        raise ValueError("is not a configuration: it nests too deeply; no section needs that") from error


def shown_name(given: str) -> str:
    """Cut a name where no name goes on: in {secret_access_key:abc} a missing space made the secret a part of it."""
    plain = re.match(r"[\w.-]{0,60}", given, re.ASCII)
    return given if plain and plain[0] == given else f"{plain[0] if plain else ''}…"


def _text(file: Path, *, required: bool) -> str:
    try:
        with file.open("rb") as source:
            content = source.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if required:
            raise
        return ""
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {format_size(MAX_BYTES)}; it must be a configuration")
    return content.decode()


class _Reader:
    """Makes values of nodes, each once: by aliases a short text can be a tree of any size, or one without an end."""

    def __init__(self, loader: yaml.SafeLoader, faults: list[Fault]) -> None:
        self._loader = loader
        self._faults = faults
        self._made: dict[yaml.Node, object] = {}

    def value(self, node: yaml.Node, path: str) -> object:
        if node not in self._made:
            # Found again within itself, it is an empty one.
            self._made[node] = {} if isinstance(node, yaml.MappingNode) else []
            self._made[node] = self._make(node, path)
        return self._made[node]

    def _make(self, node: yaml.Node, path: str) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, f"{path}." if path else "")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, f"{path}[{at}]") for at, each in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # Which of these is raised depends on what a value like 2020-13-45 or !!int x almost is.
            return object()

    def mapping(self, node: yaml.MappingNode, above: str) -> dict[str, Any]:
        """The keys of a mapping with their values; of one that is given more than once the first."""
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            given = name.value if isinstance(name, yaml.ScalarNode) else "?"
            path = above + shown_name(given)
            if given in lines:
                sentence = f"is given twice, in line {lines[given]} and line {line}; only one may stay."
                self._faults.append((path, sentence))
            elif "." in given:
                self._faults.append((path, "has a dot; a key must stand below its section."))
            else:
                lines[given] = line
                found[given] = self.value(value, path)
        return found


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    """Say why it is not YAML, without quoting from it: the fault may be in the line that holds a secret."""
    mark = error.problem_mark
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return f"is not YAML{place}: " + re.sub(r"""(['"])(.*?)\1""", _without_names, problem)


def _without_names(quoted: re.Match[str]) -> str:
    # The parser quotes tokens such as '<block end>', single characters, and names out of the file.
    return quoted[0] if len(quoted[2]) <= 2 or quoted[2].startswith("<") else "…"


def _place(before: str) -> str:
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
