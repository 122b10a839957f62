"""Uploads in parts, whose checksums must agree from the first call to the last.

The pages of CreateMultipartUpload, UploadPart and CompleteMultipartUpload in the S3 API reference say what is refused; the
texts of "Checksum Type mismatch" are those that logs of S3 show.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from testkit.servers.strict_s3 import checksums
from testkit.servers.strict_s3.checksums import COMPOSITE, FULL_OBJECT, Checksum
from testkit.servers.strict_s3.payloads import Payload
from testkit.servers.strict_s3.refusals import Refusal

MOST_PARTS = 10_000
LEAST_PART = 5 << 20


@dataclass(frozen=True)
class Part:
    """A part as it came."""

    data: bytes
    etag: str
    checksum: Checksum | None


@dataclass(frozen=True)
class Listed:
    """A part as the last call names it."""

    number: int
    etag: str
    checksum: tuple[str, str] | None


@dataclass
class Upload:
    """An upload in parts that was begun.

    Attributes:
        headers: of the call that began it.
        algorithm: of the checksums; empty where none was named, and then parts must have none.
        kind: of the checksum that the object gets.
    """

    bucket: str
    key: str
    headers: Mapping[str, str]
    algorithm: str
    kind: str
    parts: dict[int, Part] = field(default_factory=dict)


def begin(bucket: str, key: str, headers: Mapping[str, str]) -> Upload:
    """Begin an upload.

    Raises:
        Refusal: an algorithm or a type that is not known, or that do not go together.
    """
    algorithm = headers.get("x-amz-checksum-algorithm", "").upper()
    kind = headers.get("x-amz-checksum-type", "").upper()
    if algorithm and algorithm not in checksums.TYPES:
        raise Refusal(400, "InvalidRequest", "Checksum algorithm provided is unsupported.")
    if kind and not algorithm:
        # InvalidRequest: a type without an algorithm.
        raise Refusal(400, "InvalidRequest", "The x-amz-checksum-type header can only be used with x-amz-checksum-algorithm.")
    allowed = checksums.TYPES.get(algorithm, (FULL_OBJECT,))
    if kind and kind not in allowed:
        # InvalidRequest: SHA1 and SHA256 are composite only, CRC64NVME is of the full object only.
        raise Refusal(400, "InvalidRequest", f"The {kind} checksum type cannot be used with the {algorithm} algorithm.")
    return Upload(bucket, key, dict(headers), algorithm, kind or allowed[0])


def number_of(text: str) -> int:
    """The number of a part; `Refusal` if it is none from 1 to 10,000."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PARTS:
        text = f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
        raise Refusal(400, "InvalidArgument", text, ArgumentName="partNumber")
    return int(text)


def take(upload: Upload, number: int, payload: Payload) -> Part:
    """Keep a part.

    Raises:
        Refusal: its checksum is not of the upload's algorithm, or is missing where the object's is made of them.
    """
    actual = payload.checksum.algorithm if payload.checksum else ""
    needed = upload.algorithm if upload.kind == COMPOSITE else actual and upload.algorithm
    if actual != needed:
        # InvalidRequest: what was named at the beginning binds every part.
        expected, found = (name.lower() or "null" for name in (upload.algorithm, actual))
        text = f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {found}"
        raise Refusal(400, "InvalidRequest", text)
    md5 = hashlib.md5(payload.data, usedforsecurity=False).hexdigest()
    part = upload.parts[number] = Part(payload.data, md5, payload.checksum)
    return part


def parts_xml(upload: Upload, query: Mapping[str, str]) -> str:
    """What ListParts shows: the parts behind a number, at most 1,000 of them or as many as are asked for."""
    after, most = int(query.get("part-number-marker", "0")), min(int(query.get("max-parts", "1000")), 1000)
    later = [number for number in sorted(upload.parts) if number > after]
    shown = later[:most]
    parts = ""
    for number in shown:
        part = upload.parts[number]
        tag = f"<ETag>&quot;{part.etag}&quot;</ETag>"
        checksum = (
            f"<Checksum{part.checksum.algorithm}>{part.checksum.value}</Checksum{part.checksum.algorithm}>"
            if part.checksum
            else ""
        )
        parts += f"<Part><PartNumber>{number}</PartNumber>{tag}<Size>{len(part.data)}</Size>{checksum}</Part>"
    more = f"<NextPartNumberMarker>{shown[-1]}</NextPartNumberMarker>" if shown else ""
    return f"{parts}{more}<IsTruncated>{str(later != shown).lower()}</IsTruncated>"


# --- the last call -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completed:
    """What an upload has become."""

    data: bytes
    etag: str
    checksum: Checksum


def complete(upload: Upload, headers: Mapping[str, str], body: bytes, *, least_part: int) -> Completed:
    """Make an object of the parts that the last call lists.

    Raises:
        Refusal: with the code that is documented for what is wrong.
    """
    listed = _listed(body)
    numbers = [each.number for each in listed]
    if numbers != sorted(set(numbers)):
        raise Refusal(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    for each in listed:
        _check(upload, each)
    parts = [upload.parts[number] for number in numbers]
    for number, part in list(zip(numbers, parts, strict=True))[:-1]:
        if len(part.data) < least_part:
            # EntityTooSmall: only the last part may be smaller.
            text = "Your proposed upload is smaller than the minimum allowed size"
            raise Refusal(400, "EntityTooSmall", text, PartNumber=number, ProposedSize=len(part.data), MinSizeAllowed=least_part)
    datas = [part.data for part in parts]
    checksum = checksums.of_parts(upload.algorithm or checksums.BY_DEFAULT, upload.kind, datas)
    data = b"".join(datas)
    _check_whole(upload, headers, checksum, len(data))
    md5s = b"".join(bytes.fromhex(part.etag) for part in parts)
    return Completed(data, f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{len(parts)}", checksum)


def _listed(body: bytes) -> list[Listed]:
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise Refusal(400, "MalformedXML", "The XML you provided was not well-formed.") from None
    listed = []
    for element in root:
        fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
        sums = [(name.removeprefix("Checksum"), value) for name, value in fields.items() if name.startswith("Checksum")]
        number, etag = number_of(fields.get("PartNumber", "")), fields.get("ETag", "").strip('"')
        listed.append(Listed(number, etag, sums[0] if sums else None))
    if not 1 <= len(listed) <= MOST_PARTS:
        # MalformedXML: an upload has at least one part.
        raise Refusal(400, "MalformedXML", "The XML you provided did not validate against the published schema.")
    return listed


def _check(upload: Upload, listed: Listed) -> None:
    part = upload.parts.get(listed.number)
    # InvalidPart: the part was not uploaded, or its ETag or its checksum is another.
    invalid = Refusal(400, "InvalidPart", "One or more of the specified parts could not be found.", PartNumber=listed.number)
    if part is None or listed.etag != part.etag:
        raise invalid
    if listed.checksum is None:
        if upload.kind == COMPOSITE:
            # InvalidRequest: a composite checksum needs those of the parts.
            raise Refusal(
                400,
                "InvalidRequest",
                f"The upload was created using a {upload.algorithm.lower()} checksum. The complete request must include the "
                f"checksum for each part. It was missing for part {listed.number} in the request.",
            )
        return
    algorithm, value = listed.checksum
    if algorithm != upload.algorithm or value != checksums.of(algorithm, part.data).value:
        raise invalid


def _check_whole(upload: Upload, headers: Mapping[str, str], checksum: Checksum, size: int) -> None:
    kind = headers.get("x-amz-checksum-type", upload.kind).upper()
    if kind != upload.kind:
        text = (
            f"The upload was created using the {upload.kind} checksum mode. The complete request must use the same checksum mode."
        )
        raise Refusal(400, "InvalidRequest", text)
    given = checksums.given(headers)
    if given is not None:
        algorithm, value = given
        try:
            base64.b64decode(value.partition("-")[0], validate=True)
        except ValueError:
            raise Refusal(400, "InvalidRequest", f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.") from None
        if algorithm != checksum.algorithm or value not in (checksum.value, checksum.value.partition("-")[0]):
            # BadDigest: the checksum of the object is another one.
            raise Refusal(400, "BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    announced = headers.get("x-amz-mp-object-size", str(size))
    if announced != str(size):
        # InvalidRequest: the object has another size than the call says.
        raise Refusal(
            400, "InvalidRequest", f"The provided 'x-amz-mp-object-size' header value {announced} does not match {size}."
        )
