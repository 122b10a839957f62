"""The configuration as it is shown to an operator."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import yaml

from gateway.config.schema import KEYS, SECTIONS, Config, StreamKeys
from gateway.config.streams import SHORT_FORMS


def describe(config: Config) -> dict[str, Any]:
    """Return plain values for printing, nested by section: units in words, secrets as `***` where they are set."""
    printed: dict[str, Any] = {}
    for row in KEYS.values():
        section, name = row.split()
        value = row.value_in(config)
        if _is_said_by_stream(config, row.path):
            continue
        within = printed.setdefault(section, {}) if section else printed
        within[name] = row.kind.show("***" if row.kind.secret and value else value)
    return printed


def _is_said_by_stream(config: Config, path: str) -> bool:
    """Whether a key is a short form of one that `streams` gives: with both, what is printed could not be read again."""
    return any(
        short == path and getattr(keys, key) is not None
        for keys in config.streams
        for (stream, key), short in SHORT_FORMS.items()
        if stream == keys.name
    )


def to_yaml(config: Config) -> str:
    """Print a configuration as a file that would give it again, but for its secrets."""
    return yaml.safe_dump(describe(config), sort_keys=False, allow_unicode=True, width=1000)


_EXAMPLE_HEAD = """\
# Configuration of lightfile6-insights-gateway, by default /etc/lightfile6/config.yml.
#
# A line with "#" right before a key shows the default; take the "#" away and change it.
# Durations: 10m, 90s, 1h30m, 500ms. Sizes: 64MiB, 5GiB, 1MB, or a bare number of bytes.
# The environment comes over this file: LIGHTFILE6_S3_USAGE_BUCKET is usage_bucket under s3.
# check-config prints what is in effect, or everything that is wrong.
"""


# Each key of a stream, so that the example names them all.
_EXAMPLE_STREAMS = [
    "# A name, and below it any of:",
    *(f"#   {each.name}: {each.metadata['why']}" for each in fields(StreamKeys) if "why" in each.metadata),
    "# Such as:",
    "#   streams:",
    "#     crash: {form: files, bucket: my-crash-bucket}",
]


def example() -> str:
    """Write config.yml.example: every key with its default, and above it what it is for."""
    lines = [_EXAMPLE_HEAD]
    above = ""
    for row in KEYS.values():
        section, name = row.split()
        if section and section != above:
            lines += [f"# {SECTIONS[section].__doc__}", f"{section}:"]
        above = section
        indent = "  " if section else ""
        bounds = f" ({row.kind.wants})" if row.kind.name in {"duration", "size", "number", "choice"} else ""
        required = row.kind.name == "bucket"
        value = {name: f"my-{name.replace('_', '-')}" if required else row.kind.show(row.default)}
        printed = yaml.safe_dump(value, width=1000).strip()
        if row.kind.name == "records":
            lines += [f"# {row.why}", *_EXAMPLE_STREAMS, f"#{name}: {{}}", ""]
            continue
        lines += [f"{indent}# {row.why}{bounds}", f"{indent}{'' if required else '#'}{printed}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"
