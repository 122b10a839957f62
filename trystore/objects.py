"""What is tried with whole objects."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError

from trystore.finding import CHECKSUMS, Finding
from trystore.session import UNREADABLE, Trial, described, error_of

DATA = bytes(range(256)) * 4
RACERS = 8
# Bytes of names and values: the gateway never sends more than the first, S3 takes the second.
GATEWAYS_MOST, S3_MOST = 1900, 2048


def metadata_of(size: int) -> dict[str, str]:
    """Metadata of so many bytes, with every printable character of ASCII."""
    given = {"id": "i1", "user": "a b", "uri": "".join(chr(code) for code in range(0x21, 0x7F))}
    taken = len("filler") + sum(len(name) + len(text) for name, text in given.items())
    return {**given, "filler": "x" * (size - taken)}


def crc32(data: bytes) -> str:
    """The CRC32 of S3: base64 of four bytes."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def tried(name: str, what: str, attempt: Any) -> Finding:
    """Make an attempt, which returns whether it holds and what was found; an error of the store is a finding, too."""
    try:
        holds, detail = attempt()
    except ClientError as error:
        return Finding(name, what, holds=False, detail=described(error))
    except UNREADABLE as error:
        return Finding(name, what, holds=False, detail=" ".join(str(error).split()))
    except KeyError as error:
        # Of an answer of S3, where every field that is looked for stands.
        return Finding(name, what, holds=False, detail=f"the answer has no {error.args[0]}")
    return Finding(name, what, holds, detail)


def objects(trial: Trial) -> Iterator[Finding]:
    """Try whole objects."""
    for setting in CHECKSUMS:
        yield tried(f"put {setting}", f"PutObject, read back, s3.checksums: {setting}", lambda at=setting: _put(trial, at))
    yield tried("etag", "ETag of PutObject is the MD5", lambda: _etag(trial))
    yield tried("checksum back", "checksum of PutObject is answered", lambda: _checksum_back(trial))
    yield tried("checksum verified", "PutObject with a wrong checksum is refused", lambda: _wrong_checksum(trial))
    for name, size in (("metadata", GATEWAYS_MOST), ("metadata of S3", S3_MOST)):
        yield tried(name, f"metadata of {size:,} bytes comes back", lambda size=size: _metadata(trial, size))
    yield tried("head", "HEAD shows size, type and metadata", lambda: _head(trial))
    yield tried("head missing", "HEAD of a missing key is 404", lambda: _missing(trial))
    yield tried("condition put", "PutObject with If-None-Match to a taken key is refused", lambda: _condition(trial))
    yield tried("condition race", f"of {RACERS} such puts at the same time one is taken", lambda: _race(trial))


def _put(trial: Trial, setting: str) -> tuple[bool, str]:
    client, named = trial.clients[setting], trial.named(f"put-{setting}")
    client.put_object(**named, Body=DATA, ContentType="application/gzip")
    return _reads_back(client, named, DATA)


def _reads_back(client: Any, named: dict[str, str], data: bytes) -> tuple[bool, str]:
    with client.get_object(**named)["Body"] as body:
        found = body.read()
    return found == data, "the same bytes" if found == data else f"{len(found)} other bytes"


def _etag(trial: Trial) -> tuple[bool, str]:
    etag = trial.client.put_object(**trial.named("etag"), Body=DATA).get("ETag", "")
    return etag.strip('"') == hashlib.md5(DATA, usedforsecurity=False).hexdigest(), etag or "no ETag"


def _checksum_back(trial: Trial) -> tuple[bool, str]:
    answer = trial.client.put_object(**trial.named("checksum"), Body=DATA, ChecksumAlgorithm="CRC32")
    found = {name: text for name, text in answer.items() if name.startswith("Checksum") and name != "ChecksumType"}
    return answer.get("ChecksumCRC32") == crc32(DATA), ", ".join(f"{name} {text}" for name, text in found.items()) or "none"


def _wrong_checksum(trial: Trial) -> tuple[bool, str]:
    error = error_of(lambda: trial.client.put_object(**trial.named("wrong"), Body=DATA, ChecksumCRC32=crc32(b"other")))
    return error.startswith("400"), error or "taken: the store does not look at it"


def _metadata(trial: Trial, size: int) -> tuple[bool, str]:
    named, given = trial.named(f"metadata-{size}"), metadata_of(size)
    trial.client.put_object(**named, Body=b"", Metadata=given)
    found = {name.lower(): text for name, text in trial.client.head_object(**named).get("Metadata", {}).items()}
    differing = sorted(name for name in given.keys() | found.keys() if given.get(name) != found.get(name))
    return not differing, f"not as it was: {', '.join(differing)}" if differing else "all of it"


def _head(trial: Trial) -> tuple[bool, str]:
    named = trial.named("head")
    trial.client.put_object(**named, Body=DATA, ContentType="application/gzip", Metadata={"id": "i1"})
    answer = trial.client.head_object(**named)
    found = (answer.get("ContentLength"), answer.get("ContentType"), answer.get("Metadata", {}).get("id"))
    return found == (len(DATA), "application/gzip", "i1"), f"{found[0]} bytes, {found[1]}, id {found[2]}"


def _missing(trial: Trial) -> tuple[bool, str]:
    error = error_of(lambda: trial.client.head_object(Bucket=trial.bucket, Key=f"{trial.prefix}never-made"))
    return error.startswith("404"), error or "found"


def _condition(trial: Trial) -> tuple[bool, str]:
    named = trial.named("condition")
    trial.client.put_object(**named, Body=DATA, IfNoneMatch="*")
    error = error_of(lambda: trial.client.put_object(**named, Body=b"another", IfNoneMatch="*"))
    kept, _ = _reads_back(trial.client, named, DATA)
    return error.startswith("412") and kept, f"{error or 'taken'}; the object {'stays' if kept else 'was REPLACED'}"


def _race(trial: Trial) -> tuple[bool, str]:
    named = trial.named("race")

    def put(number: int) -> str:
        return error_of(lambda: trial.client.put_object(**named, Body=b"%d" % number * 1000, IfNoneMatch="*"))

    with ThreadPoolExecutor(RACERS) as racers:
        errors = list(racers.map(put, range(RACERS)))
    refused = sorted({error for error in errors if error})
    clean = all(error.startswith(("412", "409")) for error in refused)
    return errors.count("") == 1 and clean, f"{errors.count('')} taken, others {', '.join(refused) or 'none'}"
