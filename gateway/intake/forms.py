"""What the parts of a form (`multipart/form-data`) are: the file or report that is sent, and the fields beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gateway.core.errors import BadRequest, TooLarge
from gateway.core.header_parameters import extended, parameters_of, unquoted
from gateway.core.text import readable
from gateway.intake.form_parser import FormParser, PartEnd, PartHead

FORM: Final = "multipart/form-data"
MAX_FIELDS: Final = 64
MAX_FIELDS_BYTES: Final = 16 << 10
# By so much a form may be larger than what it holds: its fields, its heads, and what it has outside of its parts.
WRAPPING_BYTES: Final = 1 << 20

_MAX_BOUNDARY_BYTES: Final = 70
_URI: Final = "uri"
# What these say of a part is otherwise: nothing is undone.
_AS_IT_IS: Final = {"content-transfer-encoding": ("7bit", "8bit", "binary"), "content-encoding": ("identity",)}


def boundary_of(content_type: str) -> bytes | None:
    """Give the boundary that a Content-Type names; None if it is not that of a form. Raises `BadRequest`."""
    if "form-data" not in content_type.lower() or content_type.partition(";")[0].strip().lower() != FORM:
        return None
    boundary = unquoted(dict(parameters_of(content_type) or ()).get("boundary", ""))
    if not boundary:
        raise BadRequest(f"the Content-Type {FORM} names no boundary; leave the field to the client that makes the form")
    if len(boundary) > _MAX_BOUNDARY_BYTES or not (boundary.isascii() and boundary.isprintable()):
        raise BadRequest(f"the boundary in the Content-Type is not 1 to {_MAX_BOUNDARY_BYTES} printable characters of ASCII")
    return boundary.encode("ascii")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a client says of a file.

    Attributes:
        uri: what the file is.
        content_type: as claimed.
        filename: that a form has for it; empty if it has none.
        fields: name and value of the others that the form has, in their order.
    """

    uri: str
    content_type: str
    filename: str = ""
    fields: tuple[tuple[str, str], ...] = ()


class MultipartForm:
    """One form that holds one file, or one body of reports.

    Args:
        boundary: see `boundary_of`.
        max_bytes: of what it holds.
        has_fields: whether parts without a filename are fields; else each part is what is sent.

    Attributes:
        content_type: of what it holds, as claimed; known as soon as the first bytes of that are given.
    """

    def __init__(self, boundary: bytes, max_bytes: int, *, has_fields: bool) -> None:
        self.content_type = ""
        self._parser = FormParser(boundary)
        self._max_bytes = max_bytes
        self._has_fields = has_fields
        self._bytes = 0
        self._held: int | None = None
        self._filename = ""
        self._fields: list[tuple[str, str]] = []
        self._fields_bytes = 0
        # The field whose value is coming; None in the part that is sent.
        self._field: tuple[str, list[bytes]] | None = None

    def unwrap(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Take the next bytes of the form, and give those of what it holds. Raises `BadRequest`, `TooLarge`."""
        for piece in pieces:
            for event in self._parser.feed(piece):
                if isinstance(event, PartHead):
                    self._begin(event)
                elif isinstance(event, PartEnd):
                    self._end()
                elif self._field is None:
                    self._bytes += len(event)
                    if self._bytes > self._max_bytes:
                        raise TooLarge(f"what the form holds is larger than the {self._max_bytes} bytes that are allowed")
                    yield event
                else:
                    self._field[1].append(event)
                    self._count(self._field[0], len(event))

    def finish(self) -> None:
        """Take the end of the form. Raises `BadRequest` if it is cut short, or holds nothing."""
        self._parser.finish()
        if self._held is None:
            wanted = "part with a filename, which is the file" if self._has_fields else "part, which is the body"
            raise BadRequest(f"the form has no {wanted}; send exactly one")

    def claims(self, uri: str) -> Claims:
        """Give what is said of the file, after `finish`.

        Args:
            uri: of the query; where it is empty the field `uri` counts, and then the filename.

        Raises:
            BadRequest: none of the three says what the file is.
        """
        fields = list(self._fields)
        named = next((field for field in fields if field[0] == _URI and field[1]), None)
        if not uri and named is not None:
            uri = named[1]
            fields.remove(named)
        uri = uri or self._filename
        if not uri:
            raise BadRequest("neither the query nor a field uri nor a filename says what the file is; send one of them")
        return Claims(uri, self.content_type, self._filename, tuple(fields))

    def _begin(self, part: PartHead) -> None:
        name, filename = _names_of(part)
        if self._has_fields and filename is None:
            if len(self._fields) == MAX_FIELDS:
                raise BadRequest(f"the form has more than {MAX_FIELDS} fields beside its file; the next one is {name[:80]!a}")
            self._field = (name, [])
            self._count(name, len(name.encode("utf-8")))
            return
        if self._held is not None:
            what = "file" if self._has_fields else "part"
            raise BadRequest(
                f"parts {self._held} and {part.number} of the form are both a {what}; send each {what} in a request of its own"
            )
        self._held = part.number
        self._field = None
        self._filename = readable(filename or "")
        self.content_type = part.fields.get("content-type", "")

    def _end(self) -> None:
        if self._field is not None:
            name, value = self._field
            self._fields.append((name, readable(b"".join(value).decode("utf-8", "surrogateescape"))))
            self._field = None

    def _count(self, name: str, size: int) -> None:
        self._fields_bytes += size
        if self._fields_bytes > MAX_FIELDS_BYTES:
            raise TooLarge(f"with its field {name[:80]!a} the form has more than {MAX_FIELDS_BYTES} bytes of fields")


def _names_of(part: PartHead) -> tuple[str, str | None]:
    """The name of a part, and its filename if it has one."""
    where = f"part {part.number} of the form"
    for field, values in _AS_IT_IS.items():
        value = part.fields.get(field, values[0])
        if value.lower() not in values:
            raise BadRequest(f"{where} has {field}: {value[:80]!a}, which is not undone in a part; send its bytes as they are")
    disposition = part.fields.get("content-disposition", "")
    found = parameters_of(disposition)
    if found is None or disposition.partition(";")[0].strip().lower() != "form-data":
        raise BadRequest(f'{where} has no Content-Disposition such as form-data; name="file"; filename="photo.heic"')
    name, filename = (_text(dict(found), key, where) for key in ("name", "filename"))
    if not name:
        raise BadRequest(f"{where} has no name in its Content-Disposition")
    return readable(name), filename


def _text(given: dict[str, str], key: str, where: str) -> str | None:
    if f"{key}*" in given:
        text = extended(given[f"{key}*"])
        if text is None:
            raise BadRequest(f"{where} has a {key}* that is not UTF-8''… with the rest percent-encoded")
        return text
    if key not in given:
        return None
    text = unquoted(given[key])
    # What browsers write in place of what would end the quotes or the line.
    for escape, char in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        text = text.replace(escape, char)
    return text
