"""What an operator can set.

The records are the only table of keys: the loader, the printed configuration, the names of environment variables and
`config.yml.example` all derive from them. A duration is a float of seconds, a size an int of bytes.
"""
# key() returns dataclasses.field, which this rule cannot see through.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from gateway.config.records import key, records
from gateway.config.values import (
    GIB,
    HOUR,
    KIB,
    MIB,
    MINUTE,
    TIB,
    Bytes,
    Kind,
    Seconds,
    addresses,
    bucket,
    choice,
    duration,
    file_path,
    flag,
    name,
    prefix,
    size,
    socket_path,
    text,
    url,
    url_path,
    whole,
    whole_or_auto,
    word,
)

ENVIRONMENT: Final = "LIGHTFILE6_"


# --- the records -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListenKeys:
    """Where requests come in; the port is given with -p or PORT. Sockets that systemd passes are used instead."""

    host: tuple[str, ...] = key((), addresses(), "Addresses to listen on, IPv4 and IPv6; empty: all of both.")
    unix: Path | None = key(None, socket_path(), "Unix socket to listen on too; a port is optional then.")
    tls_certificate: Path | None = key(None, file_path(optional=True), "PEM file with the certificates, for HTTPS.")
    tls_key: Path | None = key(None, file_path(optional=True), "PEM file with the private key of the certificate.")
    fast_lane: bool = key(True, flag(), "Answer small plain reports on a faster code path; false only to look for a fault.")


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The processes of one gateway. Several workers receive, each within `limits.pending_bytes`; one process delivers."""

    workers: int | str = key(1, whole_or_auto(1, 64), "Processes that receive; auto: one for each core.")


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The account. Without keys here the standard AWS chain finds them (environment, profile, role)."""

    region: str = key("ap-northeast-1", text("a region", r"[A-Za-z0-9-]{1,63}"), "Region of the buckets.")
    access_key_id: str = key("", word(), "Static key; not needed on a machine that has a role.")
    secret_access_key: str = key("", word(secret=True), "Secret of the static key.")
    session_token: str = key("", word(secret=True), "Token that belongs to a temporary static key.")
    endpoint: str = key("", url(), "Another S3 server, such as MinIO; buckets are then named in the path.")


@dataclass(frozen=True, slots=True)
class S3Keys:
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
    conditional_put: str = key(
        "auto", choice("auto", "on", "off"), "Whether keys rely on If-None-Match; auto tests the store first."
    )
    connect_timeout: Seconds = key(10.0, duration(0.1, HOUR), "How long a connection may take.")
    read_timeout: Seconds = key(60.0, duration(0.1, HOUR), "How long the server may say nothing, nor take any of a body.")


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """What is configured of one stream; None where the defaults, or the short forms of other sections, say it."""

    name: str
    form: str | None = key(None, choice("reports", "files"), "What is sent: reports in JSON, merged into objects, or files.")
    enabled: bool = key(True, flag(), "false: it is not received, and needs no bucket.")
    path: str | None = key(None, url_path(), "Path of the API; by default / and the name.")
    bucket: str | None = key(None, bucket(), "Bucket of its objects.")
    prefix: str | None = key(None, prefix(), "What its keys begin with.")
    interval: Seconds | None = key(None, duration(1.0, HOUR), "Reports: how long they are gathered.")
    max_body: Bytes | None = key(None, size(1, 5 * TIB), "Largest body, once decompressed.")
    batch_bytes: Bytes | None = key(
        None, size(KIB, 64 * GIB), "Reports: waiting bytes that make an object before the interval ends."
    )
    batch_records: int | None = key(None, whole(1, 1_000_000_000), "Reports: how many make an object before the interval ends.")


# Directories of the spool, and the label of what the Go edition left.
RESERVED_NAMES = ("adopting", "other", "quarantine", "tmp")


@dataclass(frozen=True, slots=True)
class AggregationKeys:
    """How reports are gathered into objects."""

    usage_interval: Seconds = key(10 * MINUTE, duration(1.0, HOUR), "How long usage reports are gathered.")
    error_interval: Seconds = key(10 * MINUTE, duration(1.0, HOUR), "How long error reports are gathered.")
    max_batch_bytes: Bytes = key(256 * MIB, size(KIB, 64 * GIB), "Waiting bytes that make an object before the interval ends.")
    envelope: bool = key(False, flag(), "Write {user, received_at, report} instead of the bare report.")
    gzip_level: int = key(2, whole(0, 3), "Compression, from 0 (fast) to 3 (small).")
    host: str = key(
        "",
        text("one line of text", r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,255}"),
        "Name of this gateway in object names; empty: the machine's.",
    )


@dataclass(frozen=True, slots=True)
class LimitsKeys:
    """How much is taken from clients."""

    report_bytes: Bytes = key(64 * MIB, size(1, 5 * GIB), "Largest body of reports, once decompressed.")
    specimen_bytes: Bytes = key(5 * GIB, size(1, 5 * TIB), "Largest specimen, once decompressed.")
    body_timeout: Seconds = key(60.0, duration(0.1, HOUR), "How long a client may be silent within a body.")
    body_min_rate: Bytes = key(512, size(0, GIB), "Least bytes a second of a body, on the whole and after body_timeout; 0: any.")
    keepalive_timeout: Seconds = key(
        75.0, duration(1.0, HOUR), "How long an idle connection stays open, and a TLS handshake may take."
    )
    pending_bytes: Bytes = key(
        64 * MIB, size(KIB, 64 * GIB), "Memory of each process for bodies and for reports not yet synced; past it, 503."
    )


@dataclass(frozen=True, slots=True)
class SpoolKeys:
    """How received data waits on the disk."""

    segment_report_limit: Bytes = key(256 * KIB, size(0, GIB), "Up to this size reports share a file, a segment; 0 for never.")
    segment_max_bytes: Bytes = key(64 * MIB, size(KIB, 64 * GIB), "Size at which a segment is cut.")
    segment_max_age: Seconds = key(MINUTE, duration(0.01, HOUR), "Age at which a segment is cut.")
    quota: Bytes = key(0, size(), "Most bytes that may wait; past it, 507; 0 for no limit.")
    reserve: Bytes = key(256 * MIB, size(), "Free bytes of the disk that requests may not use; at this level, 507.")


@dataclass(frozen=True, slots=True)
class DeliveryKeys:
    """How objects are sent."""

    parallel_uploads: int = key(4, whole(1, 64), "Uploads at the same time, for each stream.")
    retry_min: Seconds = key(1.0, duration(0.01, HOUR), "First wait after a failure; each further one is longer.")
    retry_max: Seconds = key(MINUTE, duration(0.01, HOUR), "Longest wait after a failure.")
    refused_retry: Seconds = key(5 * MINUTE, duration(0.01), "Longest wait after a refusal, which only a person can mend.")


@dataclass(frozen=True, slots=True)
class ShutdownKeys:
    """How long stopping may take."""

    request_timeout: Seconds = key(30.0, duration(), "Time for the requests in flight.")
    drain_timeout: Seconds = key(5 * MINUTE, duration(), "Time for sending the spool; the rest waits for the next start.")


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What is said on standard error."""

    level: str = key("info", choice("debug", "info", "warning", "error"), "Least weight of what is written.")
    format: str = key("text", choice("text", "json"), "text for people, json for collectors.")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one gateway."""

    cache_dir: Path = key(Path("/var/lib/lightfile6-insights-gateway"), file_path(), "Directory of the spool, for one gateway.")
    response_delay_ms: int = key(0, whole(0, 600_000), "Test aid: milliseconds to wait before each answer.")
    listen: ListenKeys = ListenKeys()
    server: ServerKeys = ServerKeys()
    aws: AwsKeys = AwsKeys()
    s3: S3Keys = S3Keys()
    aggregation: AggregationKeys = AggregationKeys()
    limits: LimitsKeys = LimitsKeys()
    spool: SpoolKeys = SpoolKeys()
    delivery: DeliveryKeys = DeliveryKeys()
    shutdown: ShutdownKeys = ShutdownKeys()
    log: LogKeys = LogKeys()
    streams: tuple[StreamKeys, ...] = key(
        (), records(StreamKeys, name(reserved=RESERVED_NAMES)), "The three streams in more detail, and further ones."
    )


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

    def value_in(self, config: Config) -> Any:
        """Return what a configuration holds at this path; each key has a type of its own."""
        section, name = self.split()
        return getattr(getattr(config, section) if section else config, name)


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
