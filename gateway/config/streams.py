"""The streams that a configuration asks for: the one place in which they are built.

`usage`, `error` and `specimen` are built in; `streams` says more of them, or adds others. Keys of other sections that name a
built-in stream are short forms of its keys under `streams`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any, Final

from gateway.config.schema import KEYS, Config, StreamKeys
from gateway.core.backoff import RetryPolicy
from gateway.core.paths import PROBES
from gateway.core.streams import FORMS, LINES, CutRule, Form, KeyScheme, Stream

BUILT_IN: Final = {"usage": "reports", "error": "reports", "specimen": "files"}
# The key of a built-in stream, by its short form.
SHORT_FORMS: Final = {
    ("usage", "bucket"): "s3.usage_bucket",
    ("error", "bucket"): "s3.error_bucket",
    ("specimen", "bucket"): "s3.specimen_bucket",
    ("usage", "prefix"): "s3.usage_prefix",
    ("error", "prefix"): "s3.error_prefix",
    ("specimen", "prefix"): "s3.specimen_prefix",
    ("usage", "interval"): "aggregation.usage_interval",
    ("error", "interval"): "aggregation.error_interval",
}
DEFAULT_INTERVAL_S: Final = 600.0
_OF_REPORTS: Final = ("interval", "batch_bytes", "batch_records")

Conflict = tuple[tuple[str, ...], str]


def streams_of(config: Config) -> tuple[Stream, ...]:
    """Build the streams that are enabled, the built-in ones first."""
    return tuple(_stream(config, keys) for keys in _all(config) if keys.enabled)


def _all(config: Config) -> list[StreamKeys]:
    given = {keys.name: keys for keys in config.streams}
    built_in = [given.pop(name, StreamKeys(name)) for name in BUILT_IN]
    return [*built_in, *given.values()]


def _form(keys: StreamKeys) -> Form:
    return FORMS[keys.form or BUILT_IN.get(keys.name, LINES.name)]


def _value(config: Config, keys: StreamKeys, key: str) -> Any:
    """What is configured under a key of a stream, by its short form too; None where nothing is."""
    value = getattr(keys, key)
    short = SHORT_FORMS.get((keys.name, key))
    return KEYS[short].value_in(config) if value is None and short is not None else value


def _stream(config: Config, keys: StreamKeys) -> Stream:
    form, delivery = _form(keys), config.delivery
    cut = None
    if form.has_segments:
        cut = CutRule(
            interval_s=_value(config, keys, "interval") or DEFAULT_INTERVAL_S,
            max_bytes=keys.batch_bytes or config.aggregation.max_batch_bytes,
            max_records=keys.batch_records or 0,
        )
    return Stream(
        name=keys.name,
        form=form,
        path=_path(keys),
        # Only the local store does without buckets.
        bucket=_value(config, keys, "bucket") or keys.name,
        prefix=_value(config, keys, "prefix") or "",
        max_body_bytes=keys.max_body or (config.limits.report_bytes if form.has_segments else config.limits.specimen_bytes),
        cut=cut,
        keys=KeyScheme.HOURLY if form.has_segments else KeyScheme.BY_USER,
        retry=RetryPolicy(delivery.retry_min, delivery.retry_max, delivery.refused_retry),
    )


def _path(keys: StreamKeys) -> str:
    return keys.path or f"/{keys.name}"


def bucket_key(name: str, config: Config) -> str:
    """The path of the key that says the bucket of a stream."""
    given = next((keys.bucket for keys in config.streams if keys.name == name), None)
    return f"streams.{name}.bucket" if given is not None else SHORT_FORMS.get((name, "bucket"), f"streams.{name}.bucket")


def conflicts(config: Config, given: Collection[str], *, local: bool) -> Iterator[Conflict]:
    """Yield the paths of keys of streams that conflict, the one to blame first, and what is wrong.

    Args:
        config: what was read.
        given: the paths of keys that some source gives a value.
        local: whether objects go to a directory, so that no bucket is needed.
    """
    enabled = [keys for keys in _all(config) if keys.enabled]
    if not enabled:
        yield ("streams",), "has no stream that is enabled; at least one must be"
    for keys in config.streams:
        yield from _of_one(keys, given)
    for keys in enabled:
        if not local and not _value(config, keys, "bucket"):
            yield (bucket_key(keys.name, config),), f"is missing; it must be {KEYS['s3.usage_bucket'].kind.wants}"
    yield from _of_paths(enabled)


def _of_one(keys: StreamKeys, given: Collection[str]) -> Iterator[Conflict]:
    if keys.form is None and keys.name not in BUILT_IN:
        yield (f"streams.{keys.name}.form",), f"is missing; it must be one of {', '.join(FORMS)}"
        return
    form = _form(keys)
    for field in fields(keys):
        path = f"streams.{keys.name}.{field.name}"
        short = SHORT_FORMS.get((keys.name, field.name), "")
        if getattr(keys, field.name) is not None and field.name in _OF_REPORTS and not form.has_segments:
            yield (path,), "has no effect on files, each of which is an object; it must be left out"
        if getattr(keys, field.name) is not None and short in given:
            yield (path, short), f"is given twice, as {short} too; only one may stay"
        if short in given and field.name in _OF_REPORTS and not form.has_segments:
            yield (short,), f"has no effect, since streams.{keys.name}.form is files; it must be left out"


def _of_paths(enabled: list[StreamKeys]) -> Iterator[Conflict]:
    taken = dict.fromkeys(PROBES, "the gateway itself")
    for keys in enabled:
        path = _path(keys)
        if path in taken:
            key = f"streams.{keys.name}.path"
            yield (key,), f"{path!r} is the path of {taken[path]}; it must be another one"
        taken.setdefault(path, f"stream {keys.name}")
