"""`scripts/try-store` says what holds at a store, and which settings the gateway needs there."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from gateway.config.schema import KEYS
from testkit import CHECKOUT
from testkit.buckets import Buckets
from testkit.servers import minio, versitygw
from testkit.servers.every import on_every_server
from testkit.servers.fake_s3 import FakeS3, fake_s3, serving
from testkit.servers.strict_s3 import ACCESS_KEY, SECRET_KEY, Call, StrictS3, strict_s3
from testkit.servers.sts import AUTHORITY, https
from trystore.finding import CHECKSUMS, Finding, table
from trystore.objects import metadata_of
from trystore.verdict import judge


@dataclass(frozen=True)
class Ran:
    """What the script has said."""

    status: int
    out: str
    err: str

    def holds(self, text: str) -> str:
        """What the table says of the row that contains a text: yes or NO."""
        (line,) = [line for line in self.out.splitlines() if line.startswith("| ") and text in line]
        return line.split("|")[2].strip()

    def settings(self) -> object:
        """The YAML at the end."""
        return yaml.safe_load(self.out.rpartition("\n\n")[2])


def try_store(url: str, *arguments: str, access: str = ACCESS_KEY, secret: str = SECRET_KEY, **environment: str) -> Ran:
    """Run the script with keys in the environment, and nothing else of an AWS account."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    keys = {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret} if access else {}
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}
    done = subprocess.run(
        [CHECKOUT / "scripts" / "try-store", url, *arguments],
        env={**ours, **nothing, **keys, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def wanted(url: str, **s3: str) -> object:
    """The settings that are printed for a store."""
    return {
        "aws": {"endpoint": url, "region": "us-east-1"},
        "s3": {"checksums": "when_supported", "conditional_put": "auto"} | s3,
    }


# --- stores ------------------------------------------------------------------------------------------------------


@on_every_server
def test_a_real_server_keeps_the_promise(buckets: Buckets) -> None:
    """At a real S3 server all that the gateway needs holds, the defaults do, and nothing is left behind."""
    server = buckets.minio
    ran = try_store(server.endpoint, "--bucket", buckets.usage, access=server.access_key, secret=server.secret_key)
    assert (ran.status, ran.settings()) == (0, wanted(server.endpoint))
    assert (buckets.keys(buckets.usage), buckets.unfinished_uploads(buckets.usage)) == ([], [])


@on_every_server
def test_without_a_bucket_one_is_made(buckets: Buckets) -> None:
    """Without a bucket one is made for the time of the trial, and removed."""
    server = buckets.minio
    before = {bucket.name for bucket in buckets.client.list_buckets()}
    ran = try_store(server.endpoint, access=server.access_key, secret=server.secret_key)
    assert (ran.status, ran.settings()) == (0, wanted(server.endpoint))
    assert {bucket.name for bucket in buckets.client.list_buckets()} == before


@pytest.fixture
def strict() -> Iterator[StrictS3]:
    """Run an S3 that refuses what S3 documents as refused."""
    with strict_s3() as running:
        yield running


def test_everything_holds_at_the_strict_store(strict: StrictS3) -> None:
    """Where everything is as at S3, every row of the table says so, and nothing is left behind."""
    ran = try_store(strict.endpoint, "--bucket", "bucket")
    assert (ran.status, ran.settings()) == (0, wanted(strict.endpoint))
    assert "| NO " not in ran.out
    assert (strict.objects, strict.uploads) == ({}, {})


def test_a_store_with_tls(tmp_path: Path) -> None:
    """A store with TLS is tried if its certificate is trusted, and else the remedy is named."""
    authority = tmp_path / "authority.pem"
    authority.write_text(AUTHORITY)
    with strict_s3(tls=https(tmp_path)) as strict:
        ran = try_store(strict.endpoint, "--bucket", "bucket", SSL_CERT_FILE=str(authority))
        assert (ran.status, ran.settings()) == (0, wanted(strict.endpoint))
        ran = try_store(strict.endpoint, "--bucket", "bucket")
        assert (ran.status, "SSL_CERT_FILE names whom to trust" in ran.err) == (2, True)


def test_who_may_not_delete_is_told_what_is_left(strict: StrictS3) -> None:
    """A key with no right to delete, which the gateway does not need, tries the store as well, and is told what it leaves."""
    strict.forbidden = {"DeleteObject"}
    ran = try_store(strict.endpoint, "--bucket", "bucket")
    assert (ran.status, ran.holds("DeleteObject")) == (0, "NO")
    (prefix,) = {key.partition("/")[0] for _, key in strict.objects}
    assert f"could not be removed: what stands under {prefix}/" in ran.out


class MakesBuckets(StrictS3):
    """A store that makes a bucket which is not there, as SeaweedFS does."""

    def _answer(self, call: Call) -> web.Response:
        if call.operation == "PutObject":
            self.buckets.add(call.bucket)
        return super()._answer(call)


def test_a_bucket_that_a_store_makes_is_removed() -> None:
    """Where a missing bucket is made by the store itself, the trial says so, and leaves none behind."""
    with serving(MakesBuckets()) as store:
        ran = try_store(store.endpoint, "--bucket", "bucket")
    assert (ran.status, ran.holds("to a missing bucket")) == (0, "NO")
    assert "the store makes the bucket itself" in ran.out
    assert (store.buckets, store.objects) == ({"bucket"}, {})


# --- stores that lack something ----------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    """Run an S3 that can be made to lack something; it knows neither GET nor checksums."""
    with fake_s3() as running:
        yield running


def test_a_store_that_gives_nothing_back_is_refused(fake: FakeS3) -> None:
    """Where an object cannot be read back the promise cannot be kept, and the sentence says why."""
    ran = try_store(fake.endpoint, "--bucket", "bucket")
    assert ran.status == 1
    assert ran.out.rstrip().splitlines()[-1].startswith("The gateway cannot keep its promise with this store. With neither value")
    assert ran.holds("PutObject, read back, s3.checksums: when_supported") == "NO"


class SaysYes:
    """A proxy in maintenance: whatever is asked, the answer is 200."""

    endpoint = ""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def go_on(self, http: web.Request) -> None:
        """Let the body come."""
        assert http.transport is not None
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Say yes."""
        await http.read()
        return web.Response(body=self._body, content_type="text/html")


@pytest.mark.parametrize(("body", "status"), [(b"", 1), (b"<html>Back soon<p></html>", 2)])
def test_a_host_that_says_yes_to_everything_is_refused(body: bytes, status: int) -> None:
    """A host that answers 200 and keeps nothing is found out: by what it lacks, or by answers that are none of S3."""
    with serving(SaysYes(body)) as host:
        ran = try_store(host.endpoint, "--bucket", "bucket")
    text = {1: "cannot keep its promise", 2: "so it may be no S3"}[status]
    assert (ran.status, text in ran.out + ran.err) == (status, True)


def found(**changed: bool) -> list[Finding]:
    """What is found at a good store, but for what is changed; `_` stands for a space."""
    names = [f"{kind} {setting}" for kind in ("put", "parts") for setting in CHECKSUMS]
    names += ["etag", "checksum back", "metadata", "head", "condition put", "condition parts", "condition race"]
    given = dict.fromkeys(names, True) | {name.replace("__", " "): holds for name, holds in changed.items()}
    return [Finding(name, name, holds, "") for name, holds in given.items()]


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        ({}, {"checksums": "when_supported", "conditional_put": "auto"}),
        ({"parts__when_supported": False}, {"checksums": "when_required", "conditional_put": "auto"}),
        ({"put__when_supported": False}, {"checksums": "when_required", "conditional_put": "auto"}),
        ({"condition__put": False}, {"checksums": "when_supported", "conditional_put": "off"}),
        ({"condition__parts": False}, {"checksums": "when_supported", "conditional_put": "off"}),
        ({"condition__race": False}, {"checksums": "when_supported", "conditional_put": "off"}),
        ({"metadata": False}, {"checksums": "when_supported", "conditional_put": "off"}),
        ({"etag": False, "checksum__back": False}, {"checksums": "when_supported", "conditional_put": "auto"}),
    ],
)
def test_settings_follow_from_what_was_found(changed: dict[str, bool], settings: dict[str, str]) -> None:
    """What a store lacks is made up for by settings, which exist."""
    verdict = judge(found(**changed))
    assert (verdict.why_not, verdict.settings) == ("", settings)
    assert bool(verdict.notes) == (settings["conditional_put"] == "off")
    for name, value in settings.items():
        assert KEYS[f"s3.{name}"].kind.read(value) == value


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"put__when_supported": False, "parts__when_required": False}, "With neither value of s3.checksums"),
        ({"etag": False, "checksum__back": False, "head": False}, "cannot be proved"),
    ],
)
def test_some_stores_cannot_do(changed: dict[str, bool], why: str) -> None:
    """Where no setting helps the reason is given, and no settings."""
    verdict = judge(found(**changed))
    assert why in verdict.why_not
    assert verdict.settings == {}


def test_the_table_is_markdown() -> None:
    """A bar in a cell does not end it, and all rows have the same columns."""
    lines = table(
        [Finding("a", "what | ever", holds=True, detail="x"), Finding("b", "b", holds=False, detail="a|b")]
    ).splitlines()
    assert lines[0].split() == ["|", "tried", "|", "holds", "|", "found", "|"]
    assert "what \\| ever" in lines[2]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("size", [1900, 2048])
def test_metadata_has_the_size_that_it_is_for(size: int) -> None:
    """Metadata is of as many bytes as asked for, names and values."""
    assert sum(len(name) + len(text) for name, text in metadata_of(size).items()) == size


# --- nothing to try ----------------------------------------------------------------------------------------------


def _moved(strict: StrictS3) -> None:
    strict.moved = (301, "http://elsewhere.example")


@pytest.mark.parametrize(
    ("arguments", "keys", "text"),
    [
        ([], {"access": "nobody"}, "403 InvalidAccessKeyId: the store does not know this access key"),
        ([], {"secret": "wrong"}, "403 SignatureDoesNotMatch: the secret key is not that of the access key"),
        (["--bucket", "nowhere"], {}, "404 NoSuchBucket: the bucket is not there"),
        (["--region", "eu-central-1"], {}, "400 AuthorizationHeaderMalformed: the region is another one"),
        ([], {"access": ""}, "no credentials: give --access-key and --secret-key"),
        (["--access-key", "a"], {}, "--access-key and --secret-key go together"),
    ],
)
def test_what_has_to_be_mended_first_is_named(arguments: list[str], keys: dict[str, str], text: str, strict: StrictS3) -> None:
    """Where nothing can be tried it says what to mend, and ends with 2."""
    given = ["--bucket", "bucket", *arguments]
    ran = try_store(strict.endpoint, *given, **keys)
    assert (ran.status, ran.out) == (2, "")
    assert text in ran.err


@pytest.mark.parametrize("change", [_moved])
def test_a_bucket_that_is_elsewhere(change: Callable[[StrictS3], None], strict: StrictS3) -> None:
    """A redirect is reported as what it is."""
    change(strict)
    ran = try_store(strict.endpoint, "--bucket", "bucket")
    assert (ran.status, "301 PermanentRedirect: the bucket is in another region" in ran.err) == (2, True)


@pytest.mark.parametrize("url", ["store.example.com", "ftp://store.example.com", "http://store.example.com/path"])
def test_an_address_that_is_none(url: str) -> None:
    """What is no address of a store is refused with an example."""
    ran = try_store(url)
    assert (ran.status, "URL must be an address such as https://host:9000" in ran.err) == (2, True)


def test_a_store_that_is_away() -> None:
    """A host that does not answer is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ran = try_store(url)
    assert (ran.status, f"{url} cannot be reached" in ran.err) == (2, True)


# --- what the documentation says ---------------------------------------------------------------------------------


def test_the_versions_in_ci_are_those_of_the_page() -> None:
    """The page of the stores names the versions that are tested."""
    page = (CHECKOUT / "docs" / "stores.md").read_text("utf-8")
    for source in (minio.SOURCE, versitygw.SOURCE):
        (row,) = [line for line in page.splitlines() if f"| {source.version} |" in line]
        assert row.lower().startswith(f"| {source.name}")
