"""Streams are built from the configuration alone, and every way in which they cannot be is a fault with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.load import load
from gateway.config.render import describe, to_yaml
from gateway.config.schema import RESERVED_NAMES, Config
from gateway.config.streams import streams_of
from gateway.config.values import name, url_path
from gateway.core.errors import ConfigError
from gateway.core.streams import FILES, LINES, CutRule, KeyScheme, Stream


@pytest.fixture
def parse(tmp_path: Path) -> Any:
    """Give what loads a tree as a file would hold it."""

    def parse(tree: object, *, local: bool = True, defaults: dict[str, str] | None = None, **environ: str) -> Config:
        file = tmp_path / "config.yml"
        file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
        return load(file, required_file=True, environ=environ, overrides={}, local=local, defaults=defaults or {})

    return parse


@pytest.fixture
def faults(parse: Any) -> Any:
    """Give what loads a tree and returns what is wrong with it."""

    def faults(tree: object, **settings: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            parse(tree, **settings)
        return caught.value.faults

    return faults


def named(config: Config) -> dict[str, Stream]:
    """The streams by their names."""
    return {stream.name: stream for stream in streams_of(config)}


def test_the_built_in_streams() -> None:
    """Without any keys there are two streams of reports and one of files, with the defaults of the other sections."""
    usage, error, specimen = streams_of(Config())
    assert (usage.name, usage.form, usage.path, usage.bucket, usage.prefix) == ("usage", LINES, "/usage", "usage", "")
    assert usage.cut == CutRule(600.0, 256 << 20, 0)
    assert usage.keys is KeyScheme.HOURLY
    assert (error.name, error.form, error.max_body_bytes) == ("error", LINES, 64 << 20)
    assert (specimen.name, specimen.form, specimen.cut, specimen.keys) == ("specimen", FILES, None, KeyScheme.BY_USER)
    assert specimen.max_body_bytes == 5 << 30
    assert (usage.retry.least_s, usage.retry.most_s, usage.retry.refused_s) == (1.0, 60.0, 300.0)


def test_a_stream_is_added(parse: Any) -> None:
    """A name with a form is a stream of its own; what is left out is as the defaults say."""
    config = parse(
        {
            "streams": {
                "crash": {"form": "files", "path": "/v1/crash", "bucket": "crashes", "max_body": "1MiB"},
                "audit": {"form": "reports", "prefix": "audit", "interval": "30s", "batch_bytes": "1MiB", "batch_records": 1000},
            }
        }
    )
    streams = named(config)
    assert list(streams) == ["usage", "error", "specimen", "crash", "audit"]
    crash, audit = streams["crash"], streams["audit"]
    assert (crash.form, crash.path, crash.bucket, crash.max_body_bytes, crash.cut) == (
        FILES,
        "/v1/crash",
        "crashes",
        1 << 20,
        None,
    )
    assert (audit.form, audit.path, audit.bucket, audit.prefix) == (LINES, "/audit", "audit", "audit/")
    assert audit.cut == CutRule(30.0, 1 << 20, 1000)


def test_a_built_in_stream_takes_the_same_keys(parse: Any) -> None:
    """`streams.usage` says what the short forms of other sections say, and more."""
    short = parse({"s3": {"usage_bucket": "bbb", "usage_prefix": "p"}, "aggregation": {"usage_interval": "1m"}})
    long = parse({"streams": {"usage": {"bucket": "bbb", "prefix": "p", "interval": "1m"}}})
    assert streams_of(short) == streams_of(long)
    moved = named(parse({"streams": {"usage": {"path": "/reports", "max_body": "1KiB"}}}))["usage"]
    assert (moved.path, moved.max_body_bytes) == ("/reports", 1024)


def test_a_stream_that_is_off_needs_no_bucket(parse: Any, faults: Any) -> None:
    """`enabled: false` takes a built-in stream away, and a missing bucket of it is no fault."""
    config = parse(
        {"s3": {"usage_bucket": "bbb"}, "streams": {"error": {"enabled": False}, "specimen": {"enabled": False}}}, local=False
    )
    assert list(named(config)) == ["usage"]
    off = {name: {"enabled": False} for name in ("usage", "error", "specimen")}
    assert faults({"streams": off}) == ["streams: has no stream that is enabled; at least one must be."]


def test_the_whole_map_comes_from_one_variable() -> None:
    """`LIGHTFILE6_STREAMS` is the map as YAML, and its faults begin with the name of the variable."""
    text = "{crash: {form: files, path: /crash, bucket: ccc}}"
    crash = named(load(None, required_file=False, environ={"LIGHTFILE6_STREAMS": text}, overrides={}, local=True))["crash"]
    assert (crash.form, crash.path, crash.bucket) == (FILES, "/crash", "ccc")
    for text, fault in (
        (
            "{crash: {form: film}}",
            "LIGHTFILE6_STREAMS.crash.form: 'film' is none of the known words; it must be one of reports, files.",
        ),
        ("crash", "LIGHTFILE6_STREAMS: holds no keys; it must hold lines such as {name: {key: value}}; it must be "),
        ("{crash: {form: files, form: files}}", "LIGHTFILE6_STREAMS.crash.form: is given twice, in line 1 and line 1;"),
        ("{a: {form: files, path: /usage}}", "LIGHTFILE6_STREAMS.a.path: '/usage' is the path of stream usage; "),
    ):
        with pytest.raises(ConfigError) as caught:
            load(None, required_file=False, environ={"LIGHTFILE6_STREAMS": text}, overrides={}, local=True)
        assert [each.startswith(fault) for each in caught.value.faults] == [True], caught.value.faults


def test_the_variable_takes_the_place_of_the_file(parse: Any) -> None:
    """Of two sources the later one gives the whole map: what is merged key by key could not be taken away."""
    config = parse({"streams": {"crash": {"form": "files"}}}, LIGHTFILE6_STREAMS="{audit: {form: reports}}")
    assert list(named(config)) == ["usage", "error", "specimen", "audit"]


A_NAME = name(reserved=RESERVED_NAMES).wants
A_PATH = url_path().wants
WRONG = {
    "no form": ({"crash": {}}, ["streams.crash.form: is missing; it must be one of reports, files."]),
    "no section": ({"crash": "files"}, ["streams.crash: is text; it must be a section with keys of its own."]),
    "an unknown key": (
        {"crash": {"form": "files", "pth": "/x"}},
        ["streams.crash.pth: is not a known key; the nearest is path."],
    ),
    "a name of the layout": (
        {"quarantine": {"form": "files"}},
        [f"streams.quarantine: 'quarantine' is a name that the gateway uses itself; it must be {A_NAME}."],
    ),
    "no name": (
        {"Crash!": {"form": "files"}},
        [f"streams.Crash…: 'Crash!' is no name; it must be {A_NAME}."],
    ),
    "a path of the gateway's own": (
        {"crash": {"form": "files", "path": "/ready"}},
        ["streams.crash.path: '/ready' is the path of the gateway itself; it must be another one."],
    ),
    "a path of another stream": (
        {"crash": {"form": "files", "path": "/error"}},
        ["streams.crash.path: '/error' is the path of stream error; it must be another one."],
    ),
    "a name whose path is taken": (
        {"usage": {"path": "/crash"}, "crash": {"form": "files"}},
        ["streams.crash.path: '/crash' is the path of stream usage; it must be another one."],
    ),
    "no path": (
        {"crash": {"form": "files", "path": "/a/../b"}},
        [f"streams.crash.path: '/a/../b' is not right; it must be {A_PATH}."],
    ),
    "what only reports have": (
        {"crash": {"form": "files", "interval": "1m", "batch_records": 5}},
        [
            "streams.crash.interval: has no effect on files, each of which is an object; it must be left out.",
            "streams.crash.batch_records: has no effect on files, each of which is an object; it must be left out.",
        ],
    ),
    "two at once": (
        {"crash": {"form": "files", "max_body": "x"}, "b": {"form": 5}},
        [
            "streams.crash.max_body: 'x' is not a size; it must be a size from 1 to 5TiB.",
            "streams.b.form: is a number unless it is put in quotes; it must be one of reports, files.",
        ],
    ),
}


@pytest.mark.parametrize(("streams", "wanted"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(streams: object, wanted: list[str], faults: Any) -> None:
    """Each fault begins with the path of its key and says what would be right; all of them are reported together."""
    assert faults({"streams": streams}) == wanted


def test_a_stream_without_a_bucket_is_a_fault(faults: Any) -> None:
    """Beside the local store each stream that is enabled needs a bucket, by either of its keys."""
    told = faults({"streams": {"usage": {"bucket": "bbb"}, "crash": {"form": "files"}}}, local=False)
    assert [line.partition(": is missing; ")[0] for line in told] == [
        "s3.error_bucket",
        "s3.specimen_bucket",
        "streams.crash.bucket",
    ]


def test_one_thing_is_said_in_one_place(faults: Any, parse: Any) -> None:
    """A key and its short form together are a fault, whatever their values; a short form of what has no effect is one, too."""
    both = {"s3": {"usage_bucket": "bbb"}, "streams": {"usage": {"bucket": "bbb"}}}
    assert faults(both) == ["streams.usage.bucket: is given twice, as s3.usage_bucket too; only one may stay."]
    of_files = {"aggregation": {"usage_interval": "5m"}, "streams": {"usage": {"form": "files"}}}
    assert faults(of_files) == [
        "aggregation.usage_interval: has no effect, since streams.usage.form is files; it must be left out."
    ]
    # What the way of starting sets in place of a default is nobody's word.
    config = parse({"streams": {"usage": {"interval": "1m"}}}, defaults={"aggregation.usage_interval": "10s"})
    assert [stream.cut.interval_s for stream in streams_of(config)[:2] if stream.cut] == [60.0, 600.0]


def test_what_is_printed_can_be_read_again(parse: Any) -> None:
    """The printed configuration names what was given of each stream, and leaves out the short forms of that."""
    config = parse(
        {
            "s3": {"error_bucket": "eee"},
            "streams": {"usage": {"bucket": "bbb", "interval": "5m"}, "crash": {"form": "files", "enabled": False}},
        }
    )
    printed = describe(config)
    assert printed["streams"] == {"usage": {"bucket": "bbb", "interval": "5m"}, "crash": {"form": "files", "enabled": False}}
    assert "usage_bucket" not in printed["s3"]
    assert "usage_interval" not in printed["aggregation"]
    assert parse(to_yaml(config)) == config
