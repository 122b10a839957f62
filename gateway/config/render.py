"""The configuration as it is shown to an operator."""

from __future__ import annotations

from typing import Any

import yaml

from gateway.config.schema import KEYS, SECTIONS, Config


def describe(config: Config) -> dict[str, Any]:
    """Return plain values for printing, nested by section: units in words, secrets as `***` where they are set."""
    printed: dict[str, Any] = {}
    for row in KEYS.values():
        section, name = row.split()
        value = row.value_in(config)
        within = printed.setdefault(section, {}) if section else printed
        within[name] = row.kind.show("***" if row.kind.secret and value else value)
    return printed


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


def example() -> str:
    """Write config.yml.example: every key with its default, and above it what it is for."""
    lines = [_EXAMPLE_HEAD]
    above = ""
    for row in KEYS.values():
        section, name = row.split()
        if section != above:
            lines += [f"# {SECTIONS[section].__doc__}", f"{section}:"]
            above = section
        indent = "  " if section else ""
        bounds = f" ({row.kind.wants})" if row.kind.name in {"duration", "size", "number", "choice"} else ""
        required = row.kind.name == "bucket"
        value = {name: f"my-{name.replace('_', '-')}" if required else row.kind.show(row.default)}
        printed = yaml.safe_dump(value, width=1000).strip()
        lines += [f"{indent}# {row.why}{bounds}", f"{indent}{'' if required else '#'}{printed}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"
