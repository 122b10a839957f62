"""What the strict stand-in answers about buckets: the gateway asks for none of it, the tests look around with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from testkit.servers.strict_s3.refusals import Refusal

# As many as one answer of S3 lists.
MOST_KEYS = 1000


class Listed(Protocol):
    """An object, as far as a list shows it."""

    @property
    def body(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def etag(self) -> str:
        """Its ETag, without quotes."""
        ...

    @property
    def modified(self) -> datetime:
        """When it was put."""
        ...


def objects_xml(bucket: str, query: Mapping[str, str], objects: Mapping[str, Listed]) -> str:
    """The inside of the answer to ListObjectsV2."""
    prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
    keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
    page = keys[:MOST_KEYS]
    shown = quote if query.get("encoding-type") == "url" else escape
    contents = "".join(
        f"<Contents><Key>{shown(key)}</Key><LastModified>{_instant(objects[key].modified)}</LastModified>"
        f"<ETag>&quot;{objects[key].etag}&quot;</ETag><Size>{len(objects[key].body)}</Size></Contents>"
        for key in page
    )
    more = len(keys) > len(page)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    encoding = "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""
    return (
        f"<Name>{bucket}</Name><Prefix>{shown(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{MOST_KEYS}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{encoding}{token}{contents}"
    )


def uploads_xml(bucket: str, uploads: Iterable[tuple[str, str]]) -> str:
    """The inside of the answer to ListMultipartUploads, of pairs of key and id."""
    listed = "".join(f"<Upload><Key>{quote(key)}</Key><UploadId>{upload_id}</UploadId></Upload>" for key, upload_id in uploads)
    return f"<Bucket>{bucket}</Bucket><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{listed}"


def buckets_xml(buckets: Iterable[str], made: datetime) -> str:
    """The inside of the answer to ListBuckets."""
    listed = (f"<Bucket><Name>{name}</Name><CreationDate>{_instant(made)}</CreationDate></Bucket>" for name in sorted(buckets))
    return f"<Buckets>{''.join(listed)}</Buckets>"


def keys_to_delete(body: bytes) -> list[str]:
    """The keys that DeleteObjects names."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise Refusal(400, "MalformedXML", "The XML you provided was not well-formed.") from None
    return [element.text or "" for element in root.iter() if element.tag.rpartition("}")[2] == "Key"]


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.000Z}"
