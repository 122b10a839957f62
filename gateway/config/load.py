"""The configuration that all its sources give together.

Each source comes over the one before: the defaults, the file, the environment, the flags. All faults of all of them are
reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gateway.config import streams
from gateway.config.merge import Sources, hint
from gateway.config.schema import ENVIRONMENT, KEYS, Config, environment_name
from gateway.config.tree import shown_name
from gateway.core.errors import ConfigError, NoPlaceToListen


def load(
    path: Path | None,
    *,
    required_file: bool,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    defaults: Mapping[str, str] = MappingProxyType({}),
    local: bool,
    is_port_given: bool = True,
) -> Config:
    """Read defaults, then the file, then the environment, then the overrides, each over the one before.

    Args:
        path: the YAML file; None for none.
        required_file: whether a file that does not exist is a fault.
        environ: all variables of the process; those that begin with LIGHTFILE6_ count.
        overrides: values by dotted path, from flags; None means that the flag was not given.
        defaults: texts by dotted path, in place of the defaults of the product.
        local: objects go to a directory, so that no bucket is needed.
        is_port_given: whether there is a place to listen at besides `listen.unix`.

    Raises:
        NoPlaceToListen: there is none, whatever else is wrong.
        ConfigError: with all faults of all sources.
    """
    draft = Sources()
    draft.put_defaults(defaults)
    if path is not None:
        draft.put_file(path, required=required_file)
    _take_environment(draft, environ)
    for name, value in overrides.items():
        if isinstance(value, str | Path):
            draft.put_text(name, str(value))
        else:
            draft.put(name, value)
    config = draft.config()
    if not is_port_given and config.listen.unix is None and "listen.unix" not in draft.unclear:
        raise NoPlaceToListen([])
    draft.check(streams.conflicts(config, draft.given, local=local))
    draft.check(_conflicts(config))
    if draft.faults:
        raise ConfigError(draft.faults)
    return config


# --- the environment ---------------------------------------------------------------------------------------------


def _take_environment(sources: Sources, environ: Mapping[str, str]) -> None:
    known = {environment_name(path): path for path in KEYS}
    for name in sorted(environ):
        if name in known:
            sources.put_text(known[name], environ[name], name)
        elif name.startswith(ENVIRONMENT) and not _is_service_link(name, environ[name]):
            sources.faults.append(f"{shown_name(name)}: is not a known variable{hint(name, known)}.")


def _is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes set this variable because a service has a name such as lightfile6-insights-gateway."""
    if re.search(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", name):
        return True
    return name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


# --- values that must fit each other -----------------------------------------------------------------------------


def _conflicts(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the paths that conflict, the one to blame first, and what is wrong."""
    yield from _half_pairs(config)
    for path in ("listen.tls_certificate", "listen.tls_key"):
        file = KEYS[path].value_in(config)
        if file and not (os.path.isfile(file) and os.access(file, os.R_OK)):
            yield (path,), f"{str(file)!r} cannot be read; it must be a PEM file that this user may read"
    for smaller, larger in _ORDERED:
        low, high = (KEYS[path].value_in(config) for path in (smaller, larger))
        if low > high:
            show = KEYS[smaller].kind.show
            yield (smaller, larger), f"{show(low)} is too large; it must be at most {larger}, which is {show(high)}"
    if config.s3.kms_key_id and config.s3.server_side_encryption != "aws:kms":
        yield (
            ("s3.kms_key_id", "s3.server_side_encryption"),
            ("has no effect; it must be left out unless s3.server_side_encryption is aws:kms"),
        )


_ORDERED: Final = (
    ("spool.segment_report_limit", "limits.report_bytes"),
    ("spool.segment_report_limit", "spool.segment_max_bytes"),
    ("spool.segment_report_limit", "limits.pending_bytes"),
    ("delivery.retry_min", "delivery.retry_max"),
)

_NEEDS: Final = (
    ("listen.tls_certificate", "listen.tls_key"),
    ("listen.tls_key", "listen.tls_certificate"),
    ("aws.access_key_id", "aws.secret_access_key"),
    ("aws.secret_access_key", "aws.access_key_id"),
    ("aws.session_token", "aws.access_key_id"),
)


def _half_pairs(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    for given, missing in _NEEDS:
        if KEYS[given].value_in(config) and not KEYS[missing].value_in(config):
            yield (missing, given), f"is missing; it must be given where {given} is"
