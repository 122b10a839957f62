"""The documentation says what the program does: no name in it that does not exist, and none that exists left out.

`.venv/bin/python tests/test_docs.py` prints the tables of docs/configuration.md.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import gateway
from gateway.cli import commands, parser
from gateway.config.schema import ENVIRONMENT, KEYS, SECTIONS, Key, StreamKeys, environment_name
from gateway.service import service
from gateway.telemetry.events import EVENTS
from gateway.telemetry.metrics import Free
from gateway.web.responses import STATUSES
from testkit import CHECKOUT
from testkit.spool import new_metrics

PACKAGE = Path(gateway.__file__).parent
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
every_page = pytest.mark.parametrize("page", [str(page.relative_to(CHECKOUT)) for page in PAGES])

CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


# --- reading pages -----------------------------------------------------------------------------------------------


def read(page: str) -> str:
    """Give the text of a page."""
    return (CHECKOUT / page).read_text("utf-8")


def prose(text: str) -> str:
    """Give a page without its blocks of code."""
    return BLOCK.sub("", text)


def blocks(text: str, language: str) -> list[str]:
    """Give the blocks of code in a language."""
    return [code for name, code in BLOCK.findall(text) if name == language]


def section(text: str, heading: str) -> str:
    """Give what stands below a heading, up to the next of the same rank or a higher one."""
    found = re.search(rf"^(#+) {re.escape(heading)}$(.*)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{len(found[1])}}} ", found[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Give the cells of all rows of all tables, without their heads."""
    lines = text.splitlines()
    tables = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if not after.startswith("|--")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in tables if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip() for cell in row] for row in cells]


def named_in(cells: Iterable[str]) -> list[str]:
    """Give all that stands in backticks."""
    return [name for cell in cells for name in CODE.findall(cell)]


def anchors(text: str) -> set[str]:
    """Give the anchors that a page's headings make."""
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in HEADING.findall(prose(text)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


# --- docs/configuration.md ---------------------------------------------------------------------------------------


def configuration_tables() -> str:
    """Write the tables of all keys as they stand in docs/configuration.md."""
    lines: list[str] = []
    above = None
    for row in KEYS.values():
        within, _ = row.split()
        if row.path == "streams":
            lines += ["", *_stream_table(row)]
            continue
        if within != above:
            above = within
            about = (SECTIONS[within].__doc__ or "") if within else "Keys that stand below no section."
            lines += ["", f"### `{within}`" if within else "### At the top", "", *about.replace(". ", ".\n").splitlines(), ""]
            lines += ["| key | variable | default | must be | means |", "|---|---|---|---|---|"]
        lines.append(_configuration_row(row))
    return "\n".join(lines).strip() + "\n"


def _configuration_row(row: Key) -> str:
    default = row.kind.show(row.default)
    required = row.kind.name == "bucket"
    shown = "required" if required else "empty" if default in (None, "") else f"`{_plain(default)}`"
    cells = [f"`{row.path}`", f"`{environment_name(row.path)}`", shown, row.kind.wants, row.why]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _stream_table(row: Key) -> list[str]:
    """Give the section of the keys that each stream has."""
    about = f"{row.why} The variable `{environment_name(row.path)}` takes the whole of it, as YAML."
    lines = ["### `streams`", "", *about.replace(". ", ".\n").splitlines(), ""]
    lines += ["| key | must be | means |", "|---|---|---|"]
    for field in fields(StreamKeys):
        if "kind" in field.metadata:
            lines.append(f"| `streams.NAME.{field.name}` | {field.metadata['kind'].wants} | {field.metadata['why']} |")
    return lines


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_key_is_documented() -> None:
    """The tables of docs/configuration.md have every key with its variable, default, bounds and meaning, and no other."""
    assert section(read("docs/configuration.md"), "Every key").strip() == configuration_tables().strip()


@every_page
def test_keys_that_are_named_exist(page: str) -> None:
    """A key that a page names can be set."""
    dotted = {name for name in named_in([prose(read(page))]) if re.fullmatch(rf"({'|'.join(SECTIONS)})\.\w+", name)}
    # `config/schema.py` is no key, and neither is a record's attribute in a decision about code.
    assert {name for name in dotted if not name.endswith(".py")} <= set(KEYS)


@every_page
def test_variables_that_are_named_exist(page: str) -> None:
    """A variable of the environment that a page names is one that the program reads."""
    known = {environment_name(path) for path in KEYS}
    assert {name for name in re.findall(rf"\b{ENVIRONMENT}[A-Z0-9_]+", read(page)) if not name.endswith("_")} <= known


# --- docs/observability.md ---------------------------------------------------------------------------------------


def test_every_event_is_documented() -> None:
    """The tables of log events have every event of the catalogue, each once, and no other."""
    documented = named_in(row[0] for row in rows(section(read("docs/observability.md"), "Log events")))
    assert sorted(documented) == sorted(EVENTS)


def catalogue() -> dict[str, tuple[str, set[str]]]:
    """Give the type and the labels of each metric by the name under which it is scraped."""
    metrics = new_metrics()
    metrics.watch(list, lambda: Free(0, None), lambda: 0.0)
    found: dict[str, tuple[str, set[str]]] = {}
    for collector in metrics.registry._collector_to_names:
        # A family that is asked for at each scrape knows its labels, a metric that is counted up keeps them to itself.
        families = collector.describe()  # type: ignore[attr-defined]  # every one of ours has it
        for metric in families:
            name, kind = getattr(metric, "name", ""), getattr(metric, "type", "")
            if isinstance(metric, MetricWrapperBase):
                name, kind = metric._name, metric._type
            found[f"{name}_total" if kind == "counter" else name] = (kind, set(getattr(metric, "_labelnames", ())))
    return found


def test_every_metric_is_documented() -> None:
    """The table of metrics has every metric with its type and its labels, and no other."""
    table = rows(section(read("docs/observability.md"), "Metrics"))
    documented = {named_in(row)[0]: (row[1], set(named_in([row[2]]))) for row in table}
    assert documented == catalogue()


@every_page
def test_metrics_that_are_named_exist(page: str) -> None:
    """A metric that a page names, in an alert or a sentence, is one that is scraped."""
    known = catalogue()
    parts = {f"{name}_{part}" for name, (kind, _) in known.items() if kind == "histogram" for part in ("bucket", "sum", "count")}
    named = set(re.findall(r"\blightfile6_[a-z_]+", read(page)))
    assert named <= {*known, *parts}


# --- docs/api.md -------------------------------------------------------------------------------------------------


def answers_in_code() -> set[tuple[int, str]]:
    """Give status and code of every error that a request is answered with."""
    found = {(status, code) for _, status, code in STATUSES}
    trees = [ast.parse((PACKAGE / "web" / room).read_bytes()) for room in ("responses.py", "handlers.py")]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != "ErrorResponse":
            continue
        status, code = (one.value if isinstance(one, ast.Constant) else None for one in node.args[:2])
        if isinstance(code, str):
            # The status of what is no HTTP is chosen by aiohttp.
            found.add((status if isinstance(status, int) else 400, code))
    return found


def test_every_answer_is_documented() -> None:
    """The table of answers has every status with every code that is given, and no other."""
    table = rows(section(read("docs/api.md"), "Answers"))
    documented = [(int(row[0]), named_in([row[1]])[0]) for row in table]
    assert sorted(documented) == sorted(answers_in_code())


def test_answers_in_code_are_found() -> None:
    """The reader of the rooms that answer finds the answers that stand in no table."""
    assert {(404, "not_found"), (400, "malformed_request"), (500, "internal")} <= answers_in_code()


# --- README.md ---------------------------------------------------------------------------------------------------


def test_exit_codes_are_documented() -> None:
    """The README has the exit codes that `--help` has, in the same words, and the program uses them."""
    table = rows(section(read("README.md"), "Run it for real"))
    documented = {int(row[0]): re.split("[:,]", row[1])[0] for row in table}
    told = parser.EXAMPLES.partition("exit codes:")[2]
    assert documented == {int(code): text for code, text in re.findall(r"(\d) (\S.*?)(?:  +|\n)", told)}
    assert set(documented) == {service.DRAINED, commands.FAILED, parser.BAD_USAGE, service.LEFT_DATA}
    assert (service.DRAINED, commands.FAILED, parser.BAD_USAGE, service.LEFT_DATA) == (0, 1, 2, 3)


# --- docs/operations.md ------------------------------------------------------------------------------------------


def test_every_call_of_the_store_is_documented() -> None:
    """Every call to S3 that the store makes stands in the table of permissions, and no other."""
    calls: set[str] = set()
    for path in [*(PACKAGE / "stores").rglob("*.py"), *(PACKAGE / "aws").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_calls.call"):
                assert isinstance(node.args[0], ast.Constant)
                calls.add(str(node.args[0].value))
    table = rows(section(read("docs/operations.md"), "What the role may do"))
    assert {name.replace("_", "") for name in calls} == {name.lower() for name in named_in(row[0] for row in table)}


# --- docs/architecture.md ----------------------------------------------------------------------------------------


def test_every_package_is_in_the_architecture() -> None:
    """The table of packages names every folder of the package, and no other, each once."""
    table = rows(section(read("docs/architecture.md"), "The packages"))
    folders = [str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert sorted(named_in(row[0] for row in table)) == sorted(folders)


@every_page
def test_files_that_are_named_exist(page: str) -> None:
    """A file of the package, a script, a folder or another file of the checkout that a page names is there."""
    named = named_in([prose(read(page))])
    rooms = {name.removeprefix("gateway/") for name in named if re.fullmatch(r"[\w/]+\.py", name)}
    assert [name for name in rooms if not ((PACKAGE / name).is_file() or (PACKAGE.parent / name).is_file())] == []
    others = set(re.findall(r"\b(?:scripts/[a-z-]+|(?:tests|benchmarks|packaging)/[\w/]+(?:\.py|/))(?![\w/])", read(page)))
    assert [name for name in others if not (CHECKOUT / name).exists()] == []


# --- every page --------------------------------------------------------------------------------------------------


def relative_links(page: str) -> Iterator[tuple[str, str]]:
    """Give path and anchor of each link of a page that stays in the checkout."""
    for target in LINK.findall(prose(read(page))):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


@every_page
def test_links_lead_somewhere(page: str) -> None:
    """A link leads to a file, and its anchor to a heading of that file."""
    for path, anchor in relative_links(page):
        target = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{path}#{anchor}"


def test_every_page_is_linked() -> None:
    """Who begins at the README finds every page."""
    found, left = {"README.md"}, ["README.md"]
    while left:
        page = left.pop()
        for path, _ in relative_links(page):
            target = str(((CHECKOUT / page).parent / path).resolve().relative_to(CHECKOUT))
            if target.endswith(".md") and target not in found:
                found.add(target)
                left.append(target)
    assert {str(page.relative_to(CHECKOUT)) for page in PAGES} <= found


@every_page
def test_one_sentence_a_line(page: str) -> None:
    """A line of text holds one sentence, so that a change shows which one."""
    lines = [line for line in prose(read(page)).splitlines() if not line.startswith(("|", "#"))]
    # The number of a list, or the bold words that a paragraph begins with, are no sentence.
    bare = [re.sub(r"^ *(?:[-*] |\d+\. )?(?:\*\*[^*]+\*\*:? ?)?", "", line) for line in lines]
    assert [line for line in bare if re.search(r"[a-z0-9`)*][.?!] +[A-Z`(]", line)] == []


@every_page
def test_examples_can_be_read(page: str) -> None:
    """Examples in JSON, YAML and for the shell are without errors of syntax."""
    text = read(page)
    for code in blocks(text, "json"):
        json.loads(code)
    for code in blocks(text, "yaml"):
        yaml.safe_load(code)
    for code in blocks(text, "sh"):
        done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), code


@every_page
def test_blocks_say_their_language(page: str) -> None:
    """Every block of code names its language, so that none escapes the checks of examples."""
    assert [name for name, _ in BLOCK.findall(read(page)) if not name] == []
    assert read(page).count("```") == 2 * len(BLOCK.findall(read(page)))


@every_page
def test_subcommands_that_are_named_exist(page: str) -> None:
    """A command line of the program that a page shows is one that the program understands."""
    for line in re.findall(rf"{parser.PROGRAM}((?: +[\w./:-]+)*) *$", "\n".join(blocks(read(page), "sh")), re.MULTILINE):
        words = line.split()
        if words and words[0] != "healthcheck":
            parser.parse(words)


def test_tables_are_read() -> None:
    """The reader of tables gives rows without their head, and cells that hold an escaped bar whole."""
    assert rows("| a | b |\n|---|---|\n| `1` | x \\| y |\n\ntext\n") == [["`1`", "x \\| y"]]


if __name__ == "__main__":
    sys.stdout.write(configuration_tables())
