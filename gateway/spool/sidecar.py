"""What is known of a received file beside its bytes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.core import disk
from gateway.spool import names


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a received file beside its bytes.

    Attributes:
        id: 32 hexadecimal digits, given at receipt, by which the store knows the object again.
        user: as sent; bytes that are not UTF-8 are surrogate escapes.
        uri: likewise.
        type: media type, with its parameters.
        received: the instant of the commit in nanoseconds since the epoch.
        size: bytes, decoded.
        sha256: hexadecimal, of the decoded bytes.
        filename: that a form had for it; empty where there was none.
        fields: name and value of the others that the form had, in their order.
    """

    id: str
    user: str
    uri: str
    type: str
    received: int
    size: int
    sha256: str
    filename: str = ""
    fields: tuple[tuple[str, str], ...] = ()

    def known(self) -> dict[str, Any]:
        """All of it by name, without what only files out of forms have where there is none."""
        return {name: value for name, value in asdict(self).items() if value or name not in _FORM_FIELDS}

    def to_json(self) -> bytes:
        """One JSON object in one line of ASCII."""
        return json.dumps(self.known()).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Sidecar:
        """Undo `to_json`; ValueError if it is not one."""
        fields = json.loads(data)
        try:
            return cls(
                **{name: kind(fields[name]) for name, kind in _SIDECAR_FIELDS.items()},
                filename=str(fields.get("filename", "")),
                fields=tuple((str(name), str(value)) for name, value in fields.get("fields", ())),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a sidecar: {error}") from error


_SIDECAR_FIELDS: dict[str, type] = {
    "id": str,
    "user": str,
    "uri": str,
    "type": str,
    "received": int,
    "size": int,
    "sha256": str,
}
_FORM_FIELDS = frozenset({"filename", "fields"})


def sidecar_of(body: Path) -> Path:
    """Where the sidecar of a body stands."""
    return body.with_suffix(f".{names.SIDECAR}")


def is_lone(sidecar: Path) -> bool:
    """Whether there is no body that it belongs to."""
    return not os.path.lexists(sidecar.with_suffix(f".{names.BODY}"))


def read_sidecar(body: Path) -> Sidecar:
    """Read the sidecar of a body; ValueError or FileNotFoundError if there is none that can be read."""
    return Sidecar.from_json(b"".join(disk.read_chunks(sidecar_of(body))))
