"""What the configuration promises to an operator."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.config.render import describe, example, to_yaml
from gateway.config.schema import KEYS, SECTIONS, AwsKeys, Config, environment_name
from gateway.config.values import format_duration, format_size, parse_duration, parse_size
from gateway.core.errors import ConfigError, NoPlaceToListen
from testkit import CHECKOUT

BUCKETS = {"s3.usage_bucket": "usage", "s3.error_bucket": "error", "s3.specimen_bucket": "specimen"}
EXAMPLE = CHECKOUT / "config.yml.example"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration file and return where it is."""

    def write(content: str | bytes) -> Path:
        file = tmp_path / "config.yml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def read(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    required_file: bool = True,
    local: bool = True,
) -> Config:
    """Load with nothing but what a test is about."""
    return load(file, required_file=required_file, environ=environ or {}, overrides=overrides or {}, local=local)


def faults(*args: Any, **kwargs: Any) -> list[str]:  # the arguments of read()
    """Return the faults that loading tells."""
    with pytest.raises(ConfigError) as caught:
        read(*args, **kwargs)
    return caught.value.faults


def fault(*args: Any, **kwargs: Any) -> str:
    """Return the only fault that loading tells."""
    told = faults(*args, **kwargs)
    assert len(told) == 1, told
    return told[0]


# --- sources -----------------------------------------------------------------------------------------------------


def test_without_any_source_the_defaults_hold() -> None:
    """With no file, no variables and no flags, every key has its default."""
    assert read() == Config()


def test_defaults_are_themselves_allowed_values() -> None:
    """Each default, printed and read again, is the same value: no default is out of its own bounds."""
    for path, row in KEYS.items():
        shown = row.kind.show(row.default)
        assert shown is None or row.kind.read(shown) == row.default, path


def test_each_source_comes_over_the_one_before(write: Write) -> None:
    """The file comes over the defaults, the environment over the file, flags over the environment."""
    file = write("log: {level: debug, format: json}\nlisten: {host: file}\ndelivery: {parallel_uploads: 5}")
    environ = {"LIGHTFILE6_LISTEN_HOST": "environment", "LIGHTFILE6_LOG_LEVEL": "error"}
    config = read(file, environ=environ, overrides={"listen.host": "flag"})
    assert config.delivery.parallel_uploads == 5
    assert (config.log.format, config.log.level, config.listen.host) == ("json", "error", ("flag",))


def test_a_file_that_is_not_required_may_be_missing(tmp_path: Path) -> None:
    """A missing file leaves the defaults, unless it is required: then its path is told."""
    missing = tmp_path / "none.yml"
    assert read(missing, required_file=False) == Config()
    assert fault(missing).startswith(f"{missing}: does not exist")


@pytest.mark.parametrize("content", ["", "# nothing\n", "s3:\n", "s3: {}\nlog:\n", "\ufeffs3:\n", "cache_dir: null\n", "---\n"])
def test_empty_files_sections_and_nulls_mean_the_defaults(write: Write, content: str) -> None:
    """What says nothing changes nothing."""
    assert read(write(content)) == Config()


def test_every_key_can_come_from_the_environment() -> None:
    """Each key has a variable of its own, and what is printed for the key can be given there."""
    assert len({environment_name(path) for path in KEYS}) == len(KEYS)
    assert environment_name("s3.usage_bucket") == "LIGHTFILE6_S3_USAGE_BUCKET"
    assert environment_name("response_delay_ms") == "LIGHTFILE6_RESPONSE_DELAY_MS"
    shown = {path: row.kind.show(row.default) for path, row in KEYS.items()}
    environ = {environment_name(path): "" if value is None else str(value) for path, value in shown.items()}
    assert read(environ=environ) == Config()


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("on", True), ("false", False), ("Off", False)])
def test_flags_in_the_environment_take_the_words_of_yaml(text: str, value: bool) -> None:
    """A flag in the environment is said in the same words as in the file."""
    assert read(environ={"LIGHTFILE6_AGGREGATION_ENVELOPE": text}).aggregation.envelope is value


def test_variables_of_other_programs_are_left_alone() -> None:
    """Variables without the prefix do not matter, nor those that Kubernetes sets for a service of our name."""
    service = "LIGHTFILE6_INSIGHTS_GATEWAY"
    links = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_HTTP": "8080",
        f"{service}_PORT": "tcp://10.0.0.1:8080",
        f"{service}_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        f"{service}_PORT_8080_TCP_PROTO": "tcp",
        f"{service}_PORT_8080_TCP_PORT": "8080",
        f"{service}_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert read(environ={**links, "PATH": "/bin", "AWS_REGION": "x"}) == Config()


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    """None among the overrides is a flag without value; paths and texts are both taken."""
    config = read(overrides={"listen.host": None, "cache_dir": Path("data"), "limits.body_timeout": "5s"})
    assert (config.listen.host, config.cache_dir, config.limits.body_timeout) == ((), Path("data"), 5.0)


def test_records_cannot_be_changed() -> None:
    """A configuration is frozen once it is loaded."""
    with pytest.raises(FrozenInstanceError):
        read().log.level = "debug"  # type: ignore[misc]


# --- faults ------------------------------------------------------------------------------------------------------


def test_all_faults_of_all_sources_are_told_together(write: Write) -> None:
    """One attempt tells everything that is wrong, each fault beginning with its key or variable."""
    told = faults(
        write("cach_dir: x\ns3: {part_size: 1MiB, usage_bucket: A}\nlog: {level: loud}"),
        environ={"LIGHTFILE6_LIMITS_REPORT_BYTES": "big", "LIGHTFILE6_S3_USAGE_BUKET": "x"},
        overrides={"listen.hots": "x", "delivery.parallel_uploads": 0},
        local=False,
    )
    assert [line.partition(": ")[0] for line in told] == [
        "cach_dir",
        "s3.part_size",
        "s3.usage_bucket",
        "log.level",
        "LIGHTFILE6_LIMITS_REPORT_BYTES",
        "LIGHTFILE6_S3_USAGE_BUKET",
        "listen.hots",
        "delivery.parallel_uploads",
        "s3.error_bucket",
        "s3.specimen_bucket",
    ]


@pytest.mark.parametrize(
    ("content", "nearest"),
    [
        ("cach_dir: x", "cache_dir"),
        ("usage_bucket: x", "s3.usage_bucket"),
        ("usage_buckt: x", "s3.usage_bucket"),
        ("s3: {usageBucket: x}", "s3.usage_bucket"),
        ("s3: {kms-key-id: x}", "s3.kms_key_id"),
        ("s3: {region: x}", "aws.region"),
        ("S3: {usage_bucket: x}", "s3"),
        ("aggregate: {}", "aggregation"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(write: Write, content: str, nearest: str) -> None:
    """A misspelt or misplaced key is told with the key that was probably meant."""
    assert fault(write(content)).endswith(f"is not a known key; the nearest is {nearest}.")


def test_an_unknown_variable_names_the_nearest_one() -> None:
    """A misspelt variable is told with the variable that was probably meant, if there is one like it."""
    assert fault(environ={"LIGHTFILE6_S3_BUCKET_USAGE": "x"}).endswith("is LIGHTFILE6_S3_USAGE_BUCKET.")
    assert fault(environ={"LIGHTFILE6_XYZZY": "x"}) == (
        "LIGHTFILE6_XYZZY: is not a known variable; config.yml.example lists them all."
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "s3: {usage_bucket: 12345}",
            "s3.usage_bucket: is a number unless it is put in quotes; it must be a bucket's name",
        ),
        ("aws: {access_key_id: yes}", "aws.access_key_id: is a yes or no unless it is put in quotes; "),
        ("listen: {host: 2020-01-01}", "listen.host: is a date unless it is put in quotes; "),
        ("listen: {host: 2020-13-45}", "listen.host: is no plain value unless it is put in quotes; "),
        ("listen: {host: {a: b}}", "listen.host: is a section; it must be an address or a host name"),
        ("listen: {host: [a, [b]]}", "listen.host: is a list; "),
        ("listen: {host: [a, 2]}", "listen.host: is a number unless it is put in quotes; "),
        ("listen: {host: ['[::1]']}", "listen.host: '[::1]' is no address and no name; "),
        ("listen: {host: 'a, b'}", "listen.host: 'a, b' is no address and no name; "),
        ("listen: {host: ['::', '']}", "listen.host: '' is no address and no name; "),
        ("listen: {unix: [a]}", "listen.unix: is a list; it must be a path"),
        (f"listen: {{unix: /{'x' * 107}}}", "listen.unix: is 108 bytes long; it must be a path of at most 107 bytes."),
        ("listen: {host: !x y}", "listen.host: is no plain value unless it is put in quotes; "),
        ("cache_dir: [a]", "cache_dir: is a list; it must be a path, such as /var/lib/"),
        ("cache_dir: {a: b}", "cache_dir: is a section; it must be a path"),
        ("cache_dir: ''", "cache_dir: '' is not a path; "),
        ('cache_dir: "\\ud800"', "cache_dir: '\\ud800' is not a path; "),
        ('cache_dir: "a\\0b"', "cache_dir: 'a\\x00b' is not a path; "),
        (
            "aggregation: {usage_interval: 600}",
            "aggregation.usage_interval: '600' has no unit (h, m, s or ms); it must be a duration from 1s to 1h, ",
        ),
        ("aggregation: {usage_interval: 10 minutes}", "aggregation.usage_interval: '10 minutes' is not a duration; "),
        ("aggregation: {usage_interval: 0}", "aggregation.usage_interval: 0s is too small; "),
        ("aggregation: {usage_interval: 61m}", "aggregation.usage_interval: 1h1m is too large; "),
        ("aggregation: {usage_interval: [1]}", "aggregation.usage_interval: is a list; "),
        ("aggregation: {usage_interval: .nan}", "aggregation.usage_interval: 'nan' is not a duration; "),
        (
            "aggregation: {gzip_level: true}",
            "aggregation.gzip_level: is a yes or no; it must be a whole number from 0 to 3, such as 2.",
        ),
        ("aggregation: {gzip_level: 1.5}", "aggregation.gzip_level: is a number; it must be a whole number"),
        ("aggregation: {gzip_level: '2'}", "aggregation.gzip_level: is text; "),
        ("aggregation: {gzip_level: 4}", "aggregation.gzip_level: 4 is too large; "),
        ("aggregation: {envelope: 1}", "aggregation.envelope: is a number; it must be true or false."),
        ('aggregation: {host: "a\\nb"}', "aggregation.host: 'a\\nb' is not right; it must be one line of text."),
        ("limits: {report_bytes: 64 MB/s}", "limits.report_bytes: '64 MB/s' is not a size; "),
        ("limits: {report_bytes: 1.5}", "limits.report_bytes: '1.5' is not a whole number of bytes; "),
        ("limits: {report_bytes: -1}", "limits.report_bytes: '-1' is not a size; "),
        ("limits: {report_bytes: false}", "limits.report_bytes: is a yes or no; "),
        (
            "s3: {part_size: 4MiB}",
            "s3.part_size: 4MiB is too small; it must be a size from 5MiB to 5GiB, such as 16MiB.",
        ),
        ("s3: {part_size: 6GiB}", "s3.part_size: 6GiB is too large; "),
        (
            "log: {level: loud}",
            "log.level: 'loud' is none of the known words; it must be one of debug, info, warning, error.",
        ),
        (
            "s3: {server_side_encryption: kms}",
            "s3.server_side_encryption: 'kms' is none of the known words; it must be one of \"\", AES256, aws:kms.",
        ),
        (
            "aws: {endpoint: 'host:9000'}",
            "aws.endpoint: 'host:9000' is not the address of a server; it must be empty or an address such as https://host:9000",
        ),
        ("aws: {endpoint: 'http://'}", "aws.endpoint: 'http://' is not"),
        ("aws: {endpoint: 'http://h:99999'}", "aws.endpoint: 'http://h:99999' is not"),
        ("aws: {endpoint: 'http://[h'}", "aws.endpoint: 'http://[h' is not"),
        ("aws: {endpoint: 'http://h/?a'}", "aws.endpoint: 'http://h/?a' is not"),
        ("s3: 5", "s3: is a value; it must be a section with keys of its own."),
        ("s3: [a]", "s3: is a value; "),
        ("s3.usage_bucket: abc", "s3.usage_bucket: has a dot; a key must stand below its section."),
        ("? [a]\n: b", "…: is not a known key; config.yml.example lists them all."),
        ('"a\\nb": c', "a…: is not a known key"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(write: Write, content: str, expected: str) -> None:
    """Each wrong type or value gives one fault, with its path, what is wrong and what it must be."""
    assert fault(write(content)).startswith(expected)


@pytest.mark.parametrize("name", ["ab", "a" * 64, "My-bucket", "a_b", "-abc", "abc-", "a..b", "a/b", "ab c", "abc\n"])
def test_a_name_that_no_bucket_can_have_is_refused(name: str) -> None:
    """Bucket names have 3 to 63 of a-z, 0-9, dot and hyphen, and begin and end with a letter or digit."""
    assert fault(overrides={"s3.error_bucket": name}).startswith("s3.error_bucket: ")


@pytest.mark.parametrize("name", ["abc", "a" * 63, "my-bucket.2", "0-9"])
def test_a_name_that_a_bucket_can_have_is_taken(name: str) -> None:
    """Every name that S3 allows today is taken as it is."""
    assert read(overrides={"s3.error_bucket": name}).s3.error_bucket == name


@pytest.mark.parametrize(("given", "used"), [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b..c", "a/b..c/"), ("報告", "報告/")])
def test_a_prefix_ends_in_a_slash(given: str, used: str) -> None:
    """A prefix without slash at its end gets one; an empty one stays empty."""
    assert read(overrides={"s3.usage_prefix": given}).s3.usage_prefix == used


@pytest.mark.parametrize("given", ["/", "/a", "a//", "a//b", "..", "a/../b", "./a", "a\nb", "a\udcff", "x" * 513])
def test_a_prefix_never_leads_elsewhere(given: str) -> None:
    """A prefix with a slash at its start, an empty or dotted folder, or control characters is a fault."""
    assert fault(overrides={"s3.usage_prefix": given}).startswith("s3.usage_prefix: ")


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ("''", ()),
        ("[]", ()),
        ("localhost", ("localhost",)),
        ("::1", ("::1",)),
        ("['::']", ("::",)),
        ('["::1", 127.0.0.1]', ("::1", "127.0.0.1")),
        ("[a, b, a]", ("a", "b")),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
    ],
)
def test_hosts_are_one_or_a_list(write: Write, given: str, hosts: tuple[str, ...]) -> None:
    """Addresses to listen on are one text or a list of them, and print so that they can be read again."""
    config = read(write(f"listen:\n  host: {given}\n"))
    assert config.listen.host == hosts
    assert read(write(to_yaml(config))).listen.host == hosts


@pytest.mark.parametrize(
    ("given", "hosts"), [("", ()), ("::", ("::",)), ("::1,127.0.0.1", ("::1", "127.0.0.1")), ("a, b", ("a", "b"))]
)
def test_hosts_in_the_environment_have_commas(given: str, hosts: tuple[str, ...]) -> None:
    """In the environment several addresses have commas between them."""
    assert read(environ={"LIGHTFILE6_LISTEN_HOST": given}).listen.host == hosts


@pytest.mark.parametrize("given", [",", "a,", ",a", "a b", "[::1]"])
def test_hosts_in_the_environment_that_are_none(given: str) -> None:
    """What is no address and no name between two commas is a fault that names the variable."""
    assert fault(environ={"LIGHTFILE6_LISTEN_HOST": given}).startswith("LIGHTFILE6_LISTEN_HOST: '")


@pytest.mark.parametrize(("unix", "is_port_given"), [("/run/g.sock", False), ("", True)])
def test_a_port_or_a_unix_socket(unix: str, is_port_given: bool) -> None:
    """With one of them there is a place to listen at."""
    load(
        None, required_file=False, environ={"LIGHTFILE6_LISTEN_UNIX": unix}, overrides={}, local=True, is_port_given=is_port_given
    )


def test_no_place_to_listen(write: Write) -> None:
    """Without both, that is what is told; unless it cannot be known, because the file has a fault."""
    with pytest.raises(NoPlaceToListen):
        load(write("log: {level: x}"), required_file=True, environ={}, overrides={}, local=True, is_port_given=False)
    with pytest.raises(ConfigError, match="is not YAML"):
        load(write("log: ["), required_file=True, environ={}, overrides={}, local=True, is_port_given=False)


@pytest.mark.parametrize(("word", "value"), [("on", "on"), ("off", "off"), ("'on'", "on"), ("auto", "auto")])
def test_the_words_on_and_off_need_no_quotes(write: Write, word: str, value: str) -> None:
    """Where on and off are choices they are taken although YAML makes truth values of them."""
    assert read(write(f"s3: {{conditional_put: {word}}}")).s3.conditional_put == value


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [1", "is not YAML at line 1, column 6: while parsing a flow sequence, expected ',' or ']'"),
        (b"s3:\n\ta: 1", r"is not YAML at line 2, column 1: while scanning for the next token, found character '\t'"),
        (b"a: b: c", "is not YAML at line 1, column 5: mapping values are not allowed here."),
        (b"a: 1\n---\nb: 2", "is not YAML at line 2, column 1: expected a single document"),
        (b"a: \x01", "is not YAML at line 1, column 4: it has a control character."),
        (b"ab\ncd\xff", "is not UTF-8 at line 2, column 3; save it as UTF-8."),
        ("s3:".encode("utf-16"), "is not UTF-8 at line 1, column 1; "),
        (b"\xef\xbb\xbfs3: [", "is not YAML at line 1, column 6: "),
        (b"- a", "holds no keys; it must hold lines such as cache_dir: /data."),
        (b"text", "holds no keys; "),
        (b"[" * 100_000, "is not a configuration: it nests too deeply; "),
        (b"#" * 2_000_000, "is larger than 1MiB; "),
    ],
)
def test_a_file_that_is_no_configuration_gives_one_fault(write: Write, content: bytes, expected: str) -> None:
    """What cannot be read as keys at all is told with file, line and column, and nothing is guessed after it."""
    file = write(content)
    assert fault(file, local=False).startswith(f"{file}: {expected}")


def test_what_cannot_be_opened_gives_a_fault(tmp_path: Path) -> None:
    """A directory in the place of the file is told, not a traceback, even where no file is required."""
    assert fault(tmp_path, required_file=False) == f"{tmp_path}: cannot be read (Is a directory)."


@pytest.mark.parametrize(
    ("content", "path", "lines"),
    [
        ("cache_dir: /a\n\ncache_dir: /b", "cache_dir", "line 1 and line 3"),
        ("s3:\n  part_size: 5MiB\n  part_size: 5MiB", "s3.part_size", "line 2 and line 3"),
        ("s3: {part_size: 5MiB}\ns3: {part_size: 5MiB}", "s3", "line 1 and line 2"),
    ],
)
def test_a_key_given_twice_is_a_fault(write: Write, content: str, path: str, lines: str) -> None:
    """A key that is given twice is told with both lines: none of the two wins silently."""
    assert fault(write(content)) == f"{path}: is given twice, in {lines}; only one may stay."


def test_an_alias_stands_for_its_anchor(write: Write) -> None:
    """Ordinary YAML aliases work for values, and one that leads to itself is only another wrong value."""
    config = read(write("aggregation: {usage_interval: &often 1m, error_interval: *often}"))
    assert config.aggregation.error_interval == 60.0
    assert fault(write("cache_dir: &a [*a]")).startswith("cache_dir: is a list")
    assert faults(write("s3: &a {usage_bucket: *a}"))[0].startswith("s3.usage_bucket: is a section")


# --- values that must fit each other -----------------------------------------------------------------------------


def test_buckets_are_required_unless_the_store_is_local() -> None:
    """Without the local store all missing buckets are named; with it none is needed."""
    told = faults(local=False)
    assert [line.partition(": is missing; ")[0] for line in told] == list(BUCKETS)
    assert read(overrides=BUCKETS, local=False).s3.error_bucket == "error"
    assert read(local=True).s3.error_bucket == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"aws.access_key_id": "a"}, "aws.secret_access_key: is missing; it must be given where aws.access_key_id is."),
        (
            {"aws.secret_access_key": "a"},
            "aws.access_key_id: is missing; it must be given where aws.secret_access_key is.",
        ),
        ({"aws.session_token": "a"}, "aws.access_key_id: is missing; it must be given where aws.session_token is."),
        ({"s3.kms_key_id": "a"}, "s3.kms_key_id: has no effect; it must be left out unless"),
        ({"s3.kms_key_id": "a", "s3.server_side_encryption": "AES256"}, "s3.kms_key_id: has no effect; "),
        (
            {"delivery.retry_min": "2m"},
            "delivery.retry_min: 2m is too large; it must be at most delivery.retry_max, which is 1m.",
        ),
        (
            {"limits.report_bytes": "255KiB"},
            "spool.segment_report_limit: 256KiB is too large; it must be at most limits.report_bytes",
        ),
        (
            {"limits.pending_bytes": "255KiB"},
            "spool.segment_report_limit: 256KiB is too large; it must be at most limits.pending_bytes",
        ),
        (
            {"spool.segment_max_bytes": "255KiB"},
            "spool.segment_report_limit: 256KiB is too large; it must be at most spool.segment_max_bytes",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_are_told(given: dict[str, object], expected: str) -> None:
    """A value that is right alone and wrong beside another names both keys."""
    assert fault(overrides=given).startswith(expected)


def test_values_that_just_fit_are_taken() -> None:
    """Equal is not too large, and a KMS key with aws:kms is what it is for."""
    config = read(
        overrides={
            "spool.segment_report_limit": "1MiB",
            "spool.segment_max_bytes": "1MiB",
            "limits.report_bytes": "1MiB",
            "limits.pending_bytes": "1MiB",
            "delivery.retry_min": "1m",
            "s3.kms_key_id": "alias/a",
            "s3.server_side_encryption": "aws:kms",
        }
    )
    assert config.spool.segment_report_limit == config.limits.pending_bytes == 1 << 20


def test_a_conflict_begins_with_the_variable_that_made_it() -> None:
    """Where the value to blame came from the environment, its variable is named."""
    assert fault(environ={"LIGHTFILE6_DELIVERY_RETRY_MIN": "2m"}).startswith("LIGHTFILE6_DELIVERY_RETRY_MIN: 2m is")


def test_a_fault_hides_the_conflicts_that_only_follow_from_it(write: Write) -> None:
    """A bucket with a bad name is not also missing, and a bad bound is not compared."""
    told = faults(write("s3: 5\nlimits: {report_bytes: 1x}\nspool: {segment_report_limit: 60MiB}"), local=False)
    assert [line.partition(": ")[0] for line in told] == ["s3", "limits.report_bytes"]


def test_tls_needs_both_files_and_they_must_exist(tmp_path: Path) -> None:
    """A certificate without key, a key without certificate, and files that are not there are faults."""
    there = tmp_path / "there.pem"
    there.write_text("pem")
    both = {"listen.tls_certificate": there, "listen.tls_key": there}
    assert read(overrides=both).listen.tls_key == there
    assert fault(overrides={**both, "listen.tls_key": None}).startswith("listen.tls_key: is missing; ")
    assert fault(overrides={**both, "listen.tls_certificate": None}).startswith("listen.tls_certificate: is missing; ")
    for wrong in (tmp_path / "gone.pem", tmp_path):
        assert fault(overrides={**both, "listen.tls_key": wrong}).startswith(f"listen.tls_key: '{wrong}' cannot be read")


# --- secrets -----------------------------------------------------------------------------------------------------

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "content",
    [
        f"aws: {{secret_access_key: '{SECRET} x'}}",
        f"aws: {{secret_access_kee: {SECRET}}}",
        f"aws: {{secret_access_key: [{SECRET}]}}",
        f"aws: {{secret_access_key: !{SECRET} x}}",
        f"aws: {{endpoint: 'https://user:{SECRET}@host'}}",
        f"aws: {SECRET}",
        f"aws:\n  secret_access_key: *{SECRET}",
        f"aws:\n  secret_access_key: !{SECRET}!x y",
        f"aws:\n  secret_access_key: '{SECRET}",
        f"aws:\n  secret_access_key: {SECRET}: x",
        f"aws:\n  secret_access_key: &{SECRET} a\n  session_token: &{SECRET} b",
        f"{SECRET}",
        f"aws: {{secret_access_key:{SECRET}}}",
    ],
)
def test_a_fault_never_holds_a_secret(write: Write, content: str) -> None:
    """Whatever is wrong with a secret, or with the line it is in, its value is not printed."""
    assert SECRET not in "\n".join(faults(write(content)))
    assert SECRET not in "\n".join(faults(environ={"LIGHTFILE6_AWS_SECRET_ACCESS_KEY": f"{SECRET} x"}))


def test_secrets_are_printed_as_stars() -> None:
    """Neither repr nor any print of a configuration holds a secret; whether it is set can be seen."""
    config = replace(Config(), aws=AwsKeys(access_key_id="AKIA", secret_access_key=SECRET, session_token=SECRET))
    assert SECRET not in repr(config) + to_yaml(config) + str(describe(config))
    assert describe(config)["aws"]["secret_access_key"] == describe(config)["aws"]["session_token"] == "***"
    assert describe(config)["aws"]["access_key_id"] == "AKIA"
    assert describe(Config())["aws"]["secret_access_key"] == ""


# --- printing ----------------------------------------------------------------------------------------------------


def test_a_printed_configuration_gives_the_same_again(write: Write) -> None:
    """What check-config prints is a file that loads to the same configuration."""
    config = read(
        overrides={
            **BUCKETS,
            "limits.report_bytes": "1MB",
            "limits.body_timeout": "1m500ms",
            "s3.conditional_put": "on",
            "s3.usage_prefix": "報告",
            "aggregation.host": "yes",
            "aggregation.envelope": True,
            "spool.quota": 12345,
        }
    )
    assert read(write(to_yaml(config)), local=False) == config


def test_a_printed_configuration_is_plain() -> None:
    """All keys are printed, in the order of the records, with units as an operator writes them."""
    printed = yaml.safe_load(to_yaml(Config()))
    assert list(printed) == ["cache_dir", "response_delay_ms", *SECTIONS, "streams"]
    assert printed["cache_dir"] == "/var/lib/lightfile6-insights-gateway"
    assert printed["aggregation"]["usage_interval"] == "10m"
    assert printed["s3"]["part_size"] == "16MiB"
    assert printed["spool"]["quota"] == 0
    assert printed["listen"]["tls_key"] is None


def test_the_example_is_the_one_that_the_records_give() -> None:
    """config.yml.example shows the keys, defaults and reasons of this version."""
    assert EXAMPLE.read_text(encoding="utf-8") == example(), (
        "python -c 'from gateway.config.render import example; print(example(), end=\"\")' > config.yml.example"
    )


def test_the_example_loads() -> None:
    """The example as it is needs nothing but the names of the buckets to be a configuration."""
    config = read(EXAMPLE, local=False)
    assert replace(config, s3=Config().s3) == Config()
    assert config.s3.usage_bucket == "my-usage-bucket"


def test_the_example_shows_every_key_with_its_default(write: Write) -> None:
    """With every "#" before a key taken away the example still loads, names each key once and changes none."""
    whole = re.sub(r"^( *)#(?=[a-z])", r"\1", example(), flags=re.MULTILINE)
    shown = yaml.safe_load(whole)
    paths = [path for path in shown if path not in SECTIONS] + [f"{name}.{key}" for name in SECTIONS for key in shown[name]]
    assert sorted(paths) == sorted(KEYS)
    assert read(write(whole), local=False) == read(EXAMPLE, local=False)


def test_every_key_tells_why_on_one_line() -> None:
    """Each key has one sentence that says what it is for."""
    for path, row in KEYS.items():
        assert re.fullmatch(r"[^\n]{10,90}\.", row.why), path


# --- durations and sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("1s500ms", 1.5), ("0", 0), ("0s", 0)],
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    """Durations are hours, minutes, seconds and milliseconds, in this order."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1.5", "m", "10M", "1s1m", "1m1m", "-1s", "1d", "0.5ms", "1 m", "\u0661s", "1s\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number without unit, an unknown unit, another order or a sign is not guessed at."""
    with pytest.raises(ValueError, match=r"unit|not a"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("5 GiB", 5 << 30), ("1MB", 10**6), ("1.5KiB", 1536), ("12", 12), ("7B", 7), ("0", 0)],
)
def test_sizes_are_read_in_bytes(text: str, size: int) -> None:
    """Sizes are powers of 1024 with an i and of 1000 without; a bare number is bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "64M", "64mib", "64Mib", "-1", "1.5", "0.3KiB", "1e6", "\u0663", "1MiB\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """An unknown unit, a fraction of a byte or a sign is not guessed at."""
    with pytest.raises(ValueError, match="not a"):
        parse_size(text)


def test_printing_takes_the_shortest_form() -> None:
    """Durations and sizes are printed as an operator would write them."""
    assert [format_duration(value) for value in (0, 0.5, 60, 75, 600, 5400)] == [
        "0s",
        "500ms",
        "1m",
        "1m15s",
        "10m",
        "1h30m",
    ]
    assert [format_size(value) for value in (0, 1, 1000, 1024, 10**6, 64 << 20)] == [
        "0",
        "1",
        "1KB",
        "1KiB",
        "1MB",
        "64MiB",
    ]


@given(st.integers(0, 10**12))
def test_every_duration_survives_printing(milliseconds: int) -> None:
    """Any whole number of milliseconds, printed and read again, is the same."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 2**63))
def test_every_size_survives_printing(size: int) -> None:
    """Any number of bytes, printed and read again, is the same."""
    assert parse_size(format_size(size)) == size


# --- anything at all ---------------------------------------------------------------------------------------------

names = st.sampled_from([*KEYS, *SECTIONS, *(path.rpartition(".")[2] for path in KEYS)]) | st.text(max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4))
pieces = """s3: | | part_size: |!!int |!!bool x|!!timestamp |!!binary é|!x |&a |*a|<<: |? |[|{|}|'|"|- |%|1e5|2020-1-45|#"""
FAULT = re.compile(r"[^\n]*: [^\n]+\.")
fragments = st.sampled_from([*pieces.split("|"), "|", ": ", "\n", "\t", "0x" + "f" * 9000, "9" * 9000])


def told_of(content: bytes) -> list[str]:
    """Load the bytes and return the faults; any other error is left to fail the test."""
    descriptor, name = tempfile.mkstemp()
    try:
        os.write(descriptor, content)
        os.close(descriptor)
        read(Path(name), local=False)
    except ConfigError as error:
        return error.faults or ["an error without any fault"]
    finally:
        os.unlink(name)
    return []


@given(st.dictionaries(names, values, max_size=6))
def test_no_tree_of_values_breaks_the_loader(tree: dict[str, object]) -> None:
    """Any tree of YAML values loads or gives faults of one line each, never another error."""
    for line in told_of(yaml.safe_dump(tree).encode()):
        assert FAULT.fullmatch(line), line


texts = st.lists(fragments, max_size=12).map("".join) | st.text()


@given(texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary())
def test_no_file_breaks_the_loader(content: bytes) -> None:
    """Any bytes in the place of the file load or give faults of one line each, never another error."""
    for line in told_of(content):
        assert FAULT.fullmatch(line), line


@given(st.dictionaries(st.sampled_from([environment_name(path) for path in KEYS]), st.text(max_size=10), max_size=4))
def test_no_environment_breaks_the_loader(environ: dict[str, str]) -> None:
    """Any text in any variable loads or gives faults that begin with the variable or a key."""
    with contextlib.suppress(ConfigError):
        assert isinstance(read(environ=environ), Config)
