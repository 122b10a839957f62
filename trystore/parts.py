"""What is tried with objects in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trystore.finding import CHECKSUMS, REQUIRED, SUPPORTED, Finding
from trystore.objects import tried
from trystore.session import Trial, error_of

# The least that S3 takes for a part that is not the last.
PART = bytes(5 << 20)
LAST = b"the last part"
_SUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")


class Upload:
    """One object in two parts."""

    def __init__(self, trial: Trial, name: str, setting: str) -> None:
        self.named = trial.named(name)
        self.client = trial.clients[setting]
        self._trial = trial
        self._id: dict[str, str] = {}

    def send(self, **begin: Any) -> list[dict[str, Any]]:
        """Begin it, send its parts, and return them as the last call has to list them."""
        upload_id = self.client.create_multipart_upload(**self.named, **begin)["UploadId"]
        self._trial.uploads.append((self.named["Key"], upload_id))
        self._id = {"UploadId": upload_id}
        return [self._part(number, body) for number, body in enumerate((PART, LAST), 1)]

    def _part(self, number: int, body: bytes) -> dict[str, Any]:
        answer = self.client.upload_part(**self.named, **self._id, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"], **{name: answer[name] for name in _SUMS if name in answer}}

    def complete(self, parts: list[dict[str, Any]], **arguments: Any) -> Any:
        """Make the parts an object."""
        return self.client.complete_multipart_upload(**self.named, **self._id, MultipartUpload={"Parts": parts}, **arguments)

    def abort(self) -> None:
        """End it without an object."""
        self.client.abort_multipart_upload(**self.named, **self._id)


def parts(trial: Trial) -> Iterator[Finding]:
    """Try objects in parts."""
    for setting in CHECKSUMS:
        what = f"object in parts, read back, s3.checksums: {setting}"
        yield tried(f"parts {setting}", what, lambda at=setting: _whole(trial, at))
    yield tried("parts loose", "parts with a checksum that the beginning does not name are refused", lambda: _loose(trial))
    yield tried(
        "condition parts", "CompleteMultipartUpload with If-None-Match to a taken key is refused", lambda: _condition(trial)
    )
    yield tried("abort", "an upload that is aborted is gone", lambda: _abort(trial))


def _whole(trial: Trial, setting: str) -> tuple[bool, str]:
    upload = Upload(trial, f"parts-{setting}", setting)
    # As the gateway does: what the parts carry is named at the beginning.
    begin = {"ChecksumAlgorithm": "CRC32"} if setting == SUPPORTED else {}
    etag = upload.complete(upload.send(**begin, ContentType="application/gzip")).get("ETag", "")
    with upload.client.get_object(**upload.named)["Body"] as body:
        same = body.read() == PART + LAST
    form = "ETag MD5-2" if re.fullmatch('"[0-9a-f]{32}-2"', etag) else f"ETag {etag or 'none'}"
    return same, f"{'the same bytes' if same else 'OTHER bytes'}, {form}"


def _loose(trial: Trial) -> tuple[bool, str]:
    upload = Upload(trial, "parts-loose", SUPPORTED)
    error = error_of(lambda: upload.complete(upload.send()))
    return error.startswith("400"), error or "taken: the store is lenient"


def _condition(trial: Trial) -> tuple[bool, str]:
    upload = Upload(trial, "parts-condition", REQUIRED)
    upload.client.put_object(**upload.named, Body=b"first")
    sent = upload.send()
    error = error_of(lambda: upload.complete(sent, IfNoneMatch="*"))
    with upload.client.get_object(**upload.named)["Body"] as body:
        kept = body.read() == b"first"
    return error.startswith("412") and kept, f"{error or 'taken'}; the object {'stays' if kept else 'was REPLACED'}"


def _abort(trial: Trial) -> tuple[bool, str]:
    upload = Upload(trial, "parts-abort", REQUIRED)
    sent = upload.send()
    upload.abort()
    error = error_of(lambda: upload.complete(sent))
    return error.startswith("404"), f"completing it is {error}" if error else "it can still be completed"
