"""Names: of files in the spool, of batches, and the keys of objects.

Everything here is a pure function of its arguments. What is to be delivered gets its key from what was written down at
receipt, never from the clock, the pid or the host at the moment of sending: a second attempt must find the same key.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes, urlsplit

from gateway.core.header_parameters import TOKEN, parameters_of

NANOSECONDS = 1_000_000_000
HOUR_NS = 3600 * NANOSECONDS
MAX_NAME_BYTES = 255

OPEN_SEGMENT = "jsonl.open"
CUT_SEGMENT = "jsonl"
WHOLE_REPORT = "json"
BODY = "body"
SIDECAR = "meta"
# Stands beside a file that is being sent in parts and holds the id of that upload.
UPLOAD_NOTE = "upload"

_CUT_MARK = "~"
_HASH_CHARACTERS = 32
# Names of format 1 lack the second number.
_SPOOLED = re.compile(r"([0-9]{19})\.(?:([0-9]{19})\.)?(0|[1-9][0-9]*)\.(?:([^.]+)\.)?(jsonl\.open|jsonl|json|body|meta)")
_SEALED = re.compile(r"(\d{10})\.([^.]+)\.([0-9a-f]{32})\.(\d+)\.jsonl(?:\.gz)?")
_BATCH = re.compile(r"(\d{10})\.([^.]+)\.([0-9a-f]{32})")
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,10}")


# --- text in names -----------------------------------------------------------------------------------------------


def encode(text: str, max_bytes: int | None = None) -> str:
    """Percent-encode so that no `/`, `.`, `~` or control byte survives, cut with a hash to `max_bytes`.

    Bytes that were not UTF-8 (surrogate escapes) are encoded as the bytes they were. The result is ASCII.
    """
    # quote leaves the four marks `_.-~` as they are, and two of them have a meaning in our names.
    encoded = quote(text.encode("utf-8", "surrogateescape"), safe="").replace(".", "%2E").replace("~", "%7E")
    if max_bytes is None or len(encoded) <= max_bytes:
        return encoded
    return _cut(encoded, max_bytes)


def _cut(encoded: str, max_bytes: int) -> str:
    digest = hashlib.sha256(encoded.encode("ascii")).hexdigest()[:_HASH_CHARACTERS]
    kept = encoded[: max_bytes - len(digest) - len(_CUT_MARK)]
    # An escape that the cut went through is dropped whole.
    return re.sub(r"%[0-9A-F]?$", "", kept) + _CUT_MARK + digest


def cut_bytes(name: str, max_bytes: int) -> str:
    """The beginning of a file's name that fits so many bytes, cut between characters."""
    return os.fsencode(name)[:max_bytes].decode("utf-8", "ignore") if len(os.fsencode(name)) > max_bytes else name


def decode(encoded: str) -> str:
    """Undo `encode` where nothing was cut."""
    return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """Percent-encode what cannot be UTF-8 (surrogates), and with it each `%`, so that it can be undone; see `is_readable`."""
    if is_readable(text):
        return text
    return "".join(quote(_bytes_of(char)) if "\ud800" <= char <= "\udfff" or char == "%" else char for char in text)


def is_readable(text: str) -> bool:
    """Whether a text is UTF-8, and so stands as it is; any other one is percent-encoded where it has to be UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _bytes_of(surrogate: str) -> bytes:
    """The byte that it escapes, or what it is in an encoding that would have it."""
    return surrogate.encode("utf-8", "surrogateescape" if _is_escape(surrogate) else "surrogatepass")


def _is_escape(char: str) -> bool:
    return "\udc80" <= char <= "\udcff"


def header_value(text: str) -> tuple[str, bool]:
    """Return the text as the metadata of an object can carry it, and whether it had to be percent-encoded for that.

    Printable ASCII stays as it is, but for white space that a store or a proxy would fold.
    """
    if text.isascii() and text.isprintable() and " ".join(text.split()) == text:
        return text, False
    return quote(text.encode("utf-8", "surrogateescape"), safe="/:?&=#+,;@!$'()*"), True


def metadata_texts(
    texts: Mapping[str, str], max_bytes: int, optional: Mapping[str, str] | None = None
) -> tuple[dict[str, str], bool]:
    """Return texts of any kind as metadata of `max_bytes` at most, and whether every one is there whole.

    A field `encoded` names those that are percent-encoded; one that does not fit its share is cut with a hash. Each of the
    `optional` ones is there whole if it fits what the others leave, else not at all: a part of it could be taken for all.
    """
    result: dict[str, str] = {}
    encoded: list[str] = []
    complete = True
    share = max_bytes // len(texts)
    for name, text in texts.items():
        value, was_encoded = header_value(text)
        if len(value) > share:
            value, was_encoded, complete = encode(text, share), True, False
        if was_encoded:
            encoded.append(name)
        result[name] = value
    left = max_bytes - sum(map(len, result.values()))
    for name, text in (optional or {}).items():
        value, was_encoded = header_value(text)
        if len(value) > left:
            complete = False
            continue
        left -= len(value)
        if was_encoded:
            encoded.append(name)
        result[name] = value
    if encoded:
        result["encoded"] = " ".join(encoded)
    return result, complete


# --- time in names -----------------------------------------------------------------------------------------------


def hour_of(instant_ns: int) -> str:
    """The UTC hour `YYYYMMDDHH` of an instant in nanoseconds since the epoch."""
    return datetime.fromtimestamp(instant_ns // NANOSECONDS, UTC).strftime("%Y%m%d%H")


def instant_of(hour: str) -> int:
    """The first nanosecond of a UTC hour `YYYYMMDDHH`, 0 for digits that are no hour."""
    try:
        return int(datetime.strptime(hour, "%Y%m%d%H").replace(tzinfo=UTC).timestamp()) * NANOSECONDS
    except ValueError:
        return 0


def iso(instant_ns: int) -> str:
    """The instant as `2026-11-21T13:30:33.123456789Z`."""
    seconds, fraction = divmod(instant_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


# --- files in the spool ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpoolName:
    """The parts of the name of a spooled file: `<order>.<received>.<pid>[.<label>].<kind>`.

    Attributes:
        order: by which names sort, above that of every earlier one; no time of day.
        pid: of the process that gave the name.
        label: a user or a uri, encoded; may be empty.
        kind: what it is.
        received: when, in nanoseconds since the epoch, by the clock; None in a name of format 1, where the order says it.
    """

    order: int
    pid: int
    label: str
    kind: str
    received: int | None = None

    def __str__(self) -> str:
        received = "" if self.received is None else f".{self.received:019d}"
        label = f".{self.label}" if self.label else ""
        return f"{self.order:019d}{received}.{self.pid}{label}.{self.kind}"

    @property
    def received_ns(self) -> int:
        """When it was received, in nanoseconds since the epoch."""
        return self.order if self.received is None else self.received


def spool_name(order: int, received: int, pid: int, kind: str, text: str = "", *, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Name a spooled file; `text` (a user, a uri) is encoded and cut so that the whole fits a directory entry of `max_bytes`."""
    bare = str(SpoolName(order, pid, "", kind, received))
    # The name of the upload note is the longest that stands beside a file.
    room = max_bytes - len(bare) - 1 - len(UPLOAD_NOTE) - 1
    return str(SpoolName(order, pid, encode(text, room), kind, received))


def parse_spool_name(name: str) -> SpoolName | None:
    """Return the parts of a spooled file's name, or None if it is not one."""
    match = _SPOOLED.fullmatch(name)
    if match is None:
        return None
    order, received, pid, label, kind = match.groups()
    return SpoolName(int(order), int(pid), label or "", kind, None if received is None else int(received))


# --- batches -----------------------------------------------------------------------------------------------------

MAX_HOST_BYTES = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of reports of one UTC hour: what its directory and its sealed file are called.

    The host is part of the name, so that a batch that was sent once keeps its key when the machine is renamed (a
    container gets a new name at every start) before the answer of the store was seen.
    """

    hour: str
    host: str
    unique: str

    def __str__(self) -> str:
        return f"{self.hour}.{self.host}.{self.unique}"

    def sealed(self, number: int, *, packed: bool = True) -> str:
        """The name of the sealed file that is to be tried under key number `number`; 0 asks for the key with the id.

        One that is not packed is compressed while it is sent: see `Spool.seal_unpacked`.
        """
        return f"{self}.{number}.jsonl{'.gz' if packed else ''}"


def new_batch(hour: str, host: str, random_bytes: bytes) -> Batch:
    """Name a new batch; `random_bytes` are 16 random bytes."""
    return Batch(hour, encode(host, MAX_HOST_BYTES) or "unknown", random_bytes.hex())


def parse_batch(name: str) -> Batch | None:
    """Return the batch a directory is named after, or None."""
    match = _BATCH.fullmatch(name)
    return Batch(*match.groups()) if match else None


def parse_sealed(name: str) -> tuple[Batch, int] | None:
    """Return the batch and the number of the key to be tried from a sealed file's name, or None."""
    match = _SEALED.fullmatch(name)
    return (Batch(*match.groups()[:3]), int(match[4])) if match else None


def is_packed(sealed: str) -> bool:
    """Whether a sealed file is an archive already."""
    return sealed.endswith(".gz")


def identity_of(name: str) -> str:
    """What a file that waits for the store is, whatever number it is tried under."""
    sealed = parse_sealed(name)
    return str(sealed[0]) if sealed else name


def batch_key(prefix: str, batch: Batch, number: int) -> str:
    """`<prefix>YYYY/MM/DD/HH/YYYYMMDDHH.<host>[.<number>].jsonl.gz`; number 0 puts the batch's id in its place."""
    hour = batch.hour
    middle = {0: f".{batch.unique}", 1: ""}.get(number, f".{number}")
    return f"{prefix}{hour[:4]}/{hour[4:6]}/{hour[6:8]}/{hour[8:]}/{hour}.{batch.host}{middle}.jsonl.gz"


# --- files (specimens) -------------------------------------------------------------------------------------------

MAX_KEY_BYTES = 1024
_MAX_KEY_USER_BYTES = 200
_MAX_KEY_NAME_BYTES = 200
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
)
MAGIC_BYTES = 16
MAX_TYPE_BYTES = 255
MAX_PARAMETERS_BYTES = 1024
UNKNOWN_TYPE = "application/octet-stream"
# What clients claim without having looked at the file; curl says the last of them of every body.
_UNSAID_TYPES = frozenset({"", UNKNOWN_TYPE, "binary/octet-stream", "application/x-www-form-urlencoded"})
# Of ASCII, without the white space that a signature of S3 folds on its way.
_KEPT_VALUE = re.compile(rf'{TOKEN}|"(?: ?(?:[!#-\[\]-~]|\\[!-~]))* ?"')
# A table of our own: those of the machine and of the interpreter change, and with them the key of a second attempt.
_EXTENSION_OF_TYPE = {
    "application/gzip": "gz",
    "application/x-gzip": "gz",
    "application/javascript": "js",
    "application/msword": "doc",
    "image/jpeg": "jpg",
    "image/svg+xml": "svg",
    "image/tiff": "tif",
    "image/vnd.microsoft.icon": "ico",
    "image/x-icon": "ico",
    "text/javascript": "js",
    "text/markdown": "md",
    "text/plain": "txt",
    UNKNOWN_TYPE: "bin",
}


def content_type(claimed: str, first_bytes: bytes) -> str:
    """The media type of a file: as claimed by the sender, else by its first bytes, else the unknown type.

    The parameters that were claimed stay with it, such as `charset`; type and names are in lower case, values are as sent.
    """
    plain = claimed.partition(";")[0].strip().lower()
    if (
        plain not in _UNSAID_TYPES
        and len(plain) <= MAX_TYPE_BYTES
        and re.fullmatch(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", plain)
    ):
        return plain + _kept_parameters(claimed)
    for offset, magic, media_type in _MAGIC:
        if first_bytes[offset : offset + len(magic)] == magic:
            return media_type
    return UNKNOWN_TYPE + (_kept_parameters(claimed) if plain == UNKNOWN_TYPE else "")


def _kept_parameters(claimed: str) -> str:
    """The parameters of a type as the type of an object can carry them: all of them or, where one is malformed, none."""
    found = parameters_of(claimed)
    if found is None or not all(_KEPT_VALUE.fullmatch(value) for _, value in found):
        return ""
    text = "".join(f"; {name}={value}" for name, value in found)
    return text if len(text) <= MAX_PARAMETERS_BYTES else ""


def file_key(prefix: str, *, user: str, uri: str, media_type: str, received_ns: int, order: int, again: str) -> str:
    """`<prefix><user>/YYYY/MM/DD/<name>.<order>[.<again>].<ext>`, at most 1,024 bytes.

    The day is that of receipt. The order is that of the name in the spool, which no other file of a gateway has.
    """
    day = f"{datetime.fromtimestamp(received_ns // NANOSECONDS, UTC):%Y/%m/%d}"
    name, extension = _name_and_extension(uri)
    extension = extension or _extension_of(media_type)
    middle = f".{again}" if again else ""
    owner = encode(user, _MAX_KEY_USER_BYTES)
    return f"{prefix}{owner}/{day}/{encode(name, _MAX_KEY_NAME_BYTES)}.{order:019d}{middle}.{extension}"


def _extension_of(media_type: str) -> str:
    """`image/png` is `png`: the subtype serves where the table is silent and it can be an extension."""
    bare = media_type.partition(";")[0]
    known = _EXTENSION_OF_TYPE.get(bare)
    subtype = bare.rpartition("/")[2]
    return known or (subtype if _EXTENSION.fullmatch(subtype) else "bin")


def _name_and_extension(uri: str) -> tuple[str, str]:
    path = uri
    if re.match(r"[A-Za-z][A-Za-z0-9+-]*://", uri):
        try:
            path = urlsplit(uri).path
        except ValueError:  # `http://[` is no address, and any text may be a uri here
            path = uri
    # A uri may be a path of a Windows machine.
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    stem, dot, extension = last.rpartition(".")
    if dot and stem and _EXTENSION.fullmatch(extension):
        return stem, extension.lower()
    return last or "specimen", ""
