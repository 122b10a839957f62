"""What an operator can set.

The records are the only table of keys: the loader, the printed configuration, the names of environment variables and
`config.yml.example` all derive from them. A duration is a float of seconds, a size an int of bytes.
"""
# key() returns dataclasses.field, which this rule cannot see through.
# ruff: noqa: RUF009

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from gateway.errors import ConfigError
from gateway.units import (
    GIB,
    HOUR,
    KIB,
    MIB,
    MINUTE,
    TIB,
    Bytes,
    Kind,
    Seconds,
    bucket,
    choice,
    duration,
    file_path,
    flag,
    format_size,
    prefix,
    size,
    text,
    url,
    whole,
    word,
)

T = TypeVar("T")

ENVIRONMENT: Final = "LIGHTFILE6_"


def key(default: T, kind: Kind, why: str) -> T:
    """Declare a key: its default in the product, what it may hold, and one line for the operator."""
    declared: T = field(default=default, repr=not kind.secret, metadata={"kind": kind, "why": why})
    return declared


# --- the records -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listen:
    """Where requests come in; the port is given on the command line."""

    host: str = key("0.0.0.0", text("an address or a host name", r"[!-~]+"), "Address to listen on.")
    tls_certificate: Path | None = key(None, file_path(optional=True), "PEM file with the certificates, for HTTPS.")
    tls_key: Path | None = key(None, file_path(optional=True), "PEM file with the private key of the certificate.")
    fast_lane: bool = key(True, flag(), "Answer plain small reports by a shorter way; false only to look for a fault.")


@dataclass(frozen=True, slots=True)
class Aws:
    """The account. Without keys here the standard AWS chain finds them (environment, profile, role)."""

    region: str = key("ap-northeast-1", text("a region", r"[A-Za-z0-9-]{1,63}"), "Region of the buckets.")
    access_key_id: str = key("", word(), "Static key; not needed on a machine that has a role.")
    secret_access_key: str = key("", word(secret=True), "Secret of the static key.")
    session_token: str = key("", word(secret=True), "Token that belongs to a temporary static key.")
    endpoint: str = key("", url(), "Another S3 server, such as MinIO; buckets are then named in the path.")


@dataclass(frozen=True, slots=True)
class S3:
    """Where the objects go; the three buckets are required unless --local is given."""

    usage_bucket: str = key("", bucket(), "Bucket for usage reports.")
    error_bucket: str = key("", bucket(), "Bucket for error reports.")
    specimen_bucket: str = key("", bucket(), "Bucket for specimens.")
    usage_prefix: str = key("", prefix(), "What the keys of usage objects begin with, such as usage/.")
    error_prefix: str = key("", prefix(), "What the keys of error objects begin with, such as error/.")
    specimen_prefix: str = key("", prefix(), "What the keys of specimens begin with, such as specimen/.")
    storage_class: str = key("", word(), "Storage class to ask for, such as STANDARD_IA; empty: the bucket's own.")
    server_side_encryption: str = key("", choice("", "AES256", "aws:kms"), "Encryption asked for; empty: the bucket's.")
    kms_key_id: str = key("", word(), "Key for aws:kms; empty: the account's own.")
    part_size: Bytes = key(16 * MIB, size(5 * MIB, 5 * GIB), "Larger files are sent in parts of this size.")
    checksums: str = key(
        "when_supported",
        choice("when_supported", "when_required"),
        "Checksums on what is sent; when_required suits servers that refuse them.",
    )
    conditional_put: str = key("auto", choice("auto", "on", "off"), "Trust in If-None-Match; auto tries it first.")
    connect_timeout: Seconds = key(10.0, duration(0.1, HOUR), "How long a connection may take.")
    read_timeout: Seconds = key(60.0, duration(0.1, HOUR), "How long the server may be silent.")


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How reports are gathered into objects."""

    usage_interval: Seconds = key(10 * MINUTE, duration(1.0, HOUR), "How long usage reports are gathered.")
    error_interval: Seconds = key(10 * MINUTE, duration(1.0, HOUR), "How long error reports are gathered.")
    max_batch_bytes: Bytes = key(256 * MIB, size(KIB, 64 * GIB), "Reports that make an object before the time is up.")
    envelope: bool = key(False, flag(), "Write {user, received_at, report} instead of the bare report.")
    gzip_level: int = key(2, whole(0, 3), "Compression, from 0 (fast) to 3 (small).")
    host: str = key(
        "",
        text("one line of text", r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,255}"),
        "Name of this gateway in object names; empty: the machine's.",
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken from clients."""

    report_bytes: Bytes = key(64 * MIB, size(1, 5 * GIB), "Largest body of reports, once decompressed.")
    specimen_bytes: Bytes = key(5 * GIB, size(1, 5 * TIB), "Largest specimen, once decompressed.")
    body_timeout: Seconds = key(60.0, duration(0.1, HOUR), "How long a client may be silent within a body.")
    keepalive_timeout: Seconds = key(75.0, duration(0.0, HOUR), "How long an idle connection stays open.")
    pending_bytes: Bytes = key(64 * MIB, size(KIB, 64 * GIB), "Reports in memory waiting for a sync; past it, 503.")


@dataclass(frozen=True, slots=True)
class Spool:
    """How received data waits on the disk."""

    segment_report_limit: Bytes = key(256 * KIB, size(0, GIB), "Up to this size reports share a file; 0 for never.")
    segment_max_bytes: Bytes = key(64 * MIB, size(KIB, 64 * GIB), "Size at which a shared file is closed.")
    segment_max_age: Seconds = key(MINUTE, duration(0.01, HOUR), "Age at which a shared file is closed.")
    quota: Bytes = key(0, size(), "Most bytes that may wait; past it, 507; 0 for no such bound.")
    reserve: Bytes = key(256 * MIB, size(), "Room on the disk left free for the making of objects.")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How objects are sent."""

    parallel_uploads: int = key(4, whole(1, 64), "Uploads at the same time.")
    retry_min: Seconds = key(1.0, duration(0.01, HOUR), "First wait after a failure; each further one is longer.")
    retry_max: Seconds = key(MINUTE, duration(0.01, HOUR), "Longest wait after a failure.")
    refused_retry: Seconds = key(5 * MINUTE, duration(0.01), "Wait after a refusal, which only a person can mend.")


@dataclass(frozen=True, slots=True)
class Shutdown:
    """How long stopping may take."""

    request_timeout: Seconds = key(30.0, duration(), "Time for the requests in flight.")
    drain_timeout: Seconds = key(5 * MINUTE, duration(), "Time for sending the spool; the rest waits for the next start.")


@dataclass(frozen=True, slots=True)
class Log:
    """What is said on standard error."""

    level: str = key("info", choice("debug", "info", "warning", "error"), "Least weight of what is written.")
    format: str = key("text", choice("text", "json"), "text for people, json for collectors.")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one gateway."""

    cache_dir: Path = key(Path("/var/lib/lightfile6-insights-gateway"), file_path(), "Directory of the spool, for one gateway.")
    response_delay_ms: int = key(0, whole(0, 600_000), "Test aid: milliseconds to wait before each answer.")
    listen: Listen = Listen()
    aws: Aws = Aws()
    s3: S3 = S3()
    aggregation: Aggregation = Aggregation()
    limits: Limits = Limits()
    spool: Spool = Spool()
    delivery: Delivery = Delivery()
    shutdown: Shutdown = Shutdown()
    log: Log = Log()


# --- the table ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table: what the records say of the key at a dotted path."""

    path: str
    default: Any
    kind: Kind
    why: str

    def split(self) -> tuple[str, str]:
        """Return the section, empty for a key at the top, and the name within it."""
        section, _, name = self.path.rpartition(".")
        return section, name


def _keys(record: type, above: str = "") -> Iterator[Key]:
    for entry in fields(record):
        if is_dataclass(entry.default):
            yield from _keys(type(entry.default), f"{entry.name}.")
        else:
            yield Key(above + entry.name, entry.default, entry.metadata["kind"], entry.metadata["why"])


KEYS: Final[Mapping[str, Key]] = {row.path: row for row in _keys(Config)}
SECTIONS: Final[Mapping[str, type]] = {entry.name: type(entry.default) for entry in fields(Config) if is_dataclass(entry.default)}


def environment_name(path: str) -> str:
    """Return the environment variable that sets the key at this path: `LIGHTFILE6_S3_USAGE_BUCKET`."""
    return ENVIRONMENT + path.upper().replace(".", "_")


# --- loading -----------------------------------------------------------------------------------------------------


def load(
    path: Path | None,
    *,
    required_file: bool,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    local: bool,
) -> Config:
    """Read defaults, then the file, then the environment, then the overrides, each over the one before.

    Args:
        path: the YAML file; None for none.
        required_file: whether a file that does not exist is a fault.
        environ: all variables of the process; those that begin with LIGHTFILE6_ count.
        overrides: values by dotted path, from flags; None means that the flag was not given.
        local: objects go to a directory, so that no bucket is needed.

    Raises:
        ConfigError: with all faults of all sources.
    """
    draft = _Draft()
    if path is not None:
        _take_file(draft, path, required=required_file)
    _take_environment(draft, environ)
    for name, value in overrides.items():
        given = str(value) if isinstance(value, Path) else value
        draft.put(name, KEYS[name].kind.from_text(given) if isinstance(given, str) and name in KEYS else given)
    config = draft.config()
    draft.check(_conflicts(config, local=local))
    if draft.faults:
        raise ConfigError(draft.faults)
    return config


class _Draft:
    """What the sources have said so far.

    Attributes:
        faults: one sentence each, beginning with the path of the key or the name of the variable.
        values: what was read, by path.
        labels: which name a fault of this path begins with, where it is not the path.
        unclear: the paths of which nobody knows the value that was meant.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.values: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.unclear: set[str] = set()

    def put(self, path: str, given: object, label: str = "") -> None:
        """Read one value over what was there before; None leaves that as it is."""
        row = KEYS.get(path)
        if row is None:
            self.faults.append(f"{path}: is not a known key{_hint(path, [*KEYS, *SECTIONS])}.")
        elif given is not None:
            self.labels[path] = label or path
            try:
                self.values[path] = row.kind.read(given)
            except ValueError as error:
                self.fault(path, f"{error}; it must be {row.kind.wants}{_sample(row)}.")

    def fault(self, path: str, sentence: str) -> None:
        """Note what is wrong with the value at a known path."""
        self.faults.append(f"{self.labels.get(path, path)}: {sentence}")
        self.unclear.add(path)

    def config(self) -> Config:
        """Return the records with what was read so far."""
        config = Config()
        for path, value in self.values.items():
            section, name = KEYS[path].split()
            change = {section: replace(getattr(config, section), **{name: value})} if section else {name: value}
            config = replace(config, **change)
        return config

    def check(self, conflicts: Iterable[tuple[tuple[str, ...], str]]) -> None:
        """Note the conflicts, but for those that may only follow from a fault that was told already."""
        for paths, sentence in conflicts:
            if self.unclear.isdisjoint(paths):
                self.faults.append(f"{self.labels.get(paths[0], paths[0])}: {sentence}.")


def _sample(row: Key) -> str:
    shown = row.kind.show(row.default)
    return f", such as {shown}" if shown and row.kind.name not in {"flag", "choice"} else ""


def _hint(name: str, known: Iterable[str]) -> str:
    """Name the nearest known name: the one with the same last part, else the one that looks most alike."""
    plain = name.removeprefix(ENVIRONMENT).lower().replace("-", "_")
    spelt = {other.removeprefix(ENVIRONMENT).lower(): other for other in known}
    same = [other for other in spelt if other.rpartition(".")[2] == plain.rpartition(".")[2]]
    near = same or difflib.get_close_matches(plain, spelt, n=1, cutoff=0.5)
    return f"; the nearest is {spelt[near[0]]}" if near else "; config.yml.example lists them all"


# --- the file ----------------------------------------------------------------------------------------------------


def _take_file(draft: _Draft, file: Path, *, required: bool) -> None:
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


def _entries(draft: _Draft, node: yaml.MappingNode, above: str) -> Iterator[tuple[str, yaml.Node]]:
    """Yield path and value of each key, the first one only where a key is given more than once."""
    lines: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        given = name.value if isinstance(name, yaml.ScalarNode) else "?"
        path = above + _shown_name(given)
        if given in lines:
            draft.faults.append(f"{path}: is given twice, in line {lines[given]} and line {line}; only one may stay.")
        elif "." in given:
            draft.faults.append(f"{path}: has a dot; a key must stand below its section.")
        else:
            lines[given] = line
            yield path, value


def _shown_name(given: str) -> str:
    """Cut a name where no name goes on: in {secret_access_key:abc} a missing space made the secret a part of it."""
    plain = re.match(r"[\w.-]{0,60}", given, re.ASCII)
    return given if plain and plain[0] == given else f"{plain[0] if plain else ''}…"


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """Return the value of a scalar; of a list or mapping only the type, as no key takes one."""
    if not isinstance(node, yaml.ScalarNode):
        return {} if isinstance(node, yaml.MappingNode) else []
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # Which of these is raised depends on what a value like 2020-13-45 or !!int x almost is.
        return object()


# --- the environment ---------------------------------------------------------------------------------------------


def _take_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    known = {environment_name(path): path for path in KEYS}
    for name in sorted(environ):
        if name in known:
            path = known[name]
            draft.put(path, KEYS[path].kind.from_text(environ[name]), name)
        elif name.startswith(ENVIRONMENT) and not _is_service_link(name, environ[name]):
            draft.faults.append(f"{_shown_name(name)}: is not a known variable{_hint(name, known)}.")


def _is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes set this variable because a service has a name such as lightfile6-insights-gateway."""
    if re.search(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$", name):
        return True
    return name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


# --- values that must fit each other -----------------------------------------------------------------------------


def _conflicts(config: Config, *, local: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the paths that conflict, the one to blame first, and what is wrong."""
    if not local:
        for path, row in KEYS.items():
            if row.kind.name == "bucket" and not _value(config, row):
                yield (path,), f"is missing; it must be {row.kind.wants}"
    yield from _half_pairs(config)
    for path in ("listen.tls_certificate", "listen.tls_key"):
        file = _value(config, KEYS[path])
        if file and not (os.path.isfile(file) and os.access(file, os.R_OK)):
            yield (path,), f"{str(file)!r} cannot be read; it must be a PEM file that this user may read"
    for smaller, larger in _ORDERED:
        low, high = (_value(config, KEYS[path]) for path in (smaller, larger))
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
        if _value(config, KEYS[given]) and not _value(config, KEYS[missing]):
            yield (missing, given), f"is missing; it must be given where {given} is"


def _value(config: Config, row: Key) -> Any:  # each key has its own type
    section, name = row.split()
    return getattr(getattr(config, section) if section else config, name)


# --- printing ----------------------------------------------------------------------------------------------------


def describe(config: Config) -> dict[str, Any]:
    """Return plain values for printing, nested by section: units in words, secrets as `***` where they are set."""
    printed: dict[str, Any] = {}
    for row in KEYS.values():
        section, name = row.split()
        value = _value(config, row)
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
