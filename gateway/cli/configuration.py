"""The configuration that the flags of a subcommand ask for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gateway.cli.parser import DEFAULT_CONFIG
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.core.errors import StartError

# To see an object appear when the program is tried on a desk.
LOCAL_DEFAULTS = {"aggregation.usage_interval": "10s", "aggregation.error_interval": "10s"}


def configuration(options: argparse.Namespace, *, is_port_given: bool) -> Config:
    """Load it; ConfigError with all faults, StartError where the working directory is gone."""
    defaults: dict[str, str] = {}
    overrides: dict[str, object] = {}
    path: Path | None = options.config or DEFAULT_CONFIG
    if options.local is not None:
        if options.config is None:
            defaults = LOCAL_DEFAULTS
        options.local = _absolute(options.local)
        overrides["cache_dir"] = options.local / "spool"
        path = options.config
    return load(
        path,
        required_file=options.config is not None,
        environ=os.environ,
        overrides=overrides,
        defaults=defaults,
        local=options.local is not None,
        is_port_given=is_port_given,
    )


def _absolute(path: Path) -> Path:
    """A path that means the same wherever the process is; StartError if that is nowhere."""
    try:
        return path.absolute()
    except FileNotFoundError as error:
        raise StartError(
            f"--local {path}: the working directory was removed; start it elsewhere, or give a whole path"
        ) from error
