"""Uploads in parts: begun, noted on disk, sent, completed or aborted.

The note stands beside the file from before the first part until the upload is over, so that no crash leaves parts in the
store that nobody would ever abort.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway import disk, names
from gateway.errors import Refused, StoreError, Transient, is_full
from gateway.stores import Object
from gateway.stores.file_slice import body_of
from gateway.stores.s3_calls import Calls, missing
from gateway.stores.s3_errors import may_be_of_the_condition
from gateway.stores.s3_evidence import Body, body_to_send, etag_of, is_composed, is_kept, is_own

MAX_PARTS = 10_000
# For the abort of an upload that no note names, when the gateway stops.
_FAREWELL_S = 2.0


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that was sent: as Complete lists it, its CRC-32, and whether its answer proves it."""

    listed: dict[str, Any]
    crc32: int
    is_kept: bool


class Uploads:
    """Sends objects in parts.

    Args:
        calls: to the store.
        checksums: whether parts carry a checksum. Create, each part and Complete have to agree on it.
    """

    def __init__(self, calls: Calls, *, checksums: bool) -> None:
        self._calls = calls
        self._checksums = checksums

    @staticmethod
    def note_of(source: Path) -> Path:
        """Where the note of a file's upload stands."""
        return source.with_name(f"{source.name}.{names.UPLOAD_NOTE}")

    async def put(
        self, target: Object, source: Path, part_size: int, note: Path, described: dict[str, Any], *, conditional: bool
    ) -> bool:
        """Send a file, and return whether the answers prove that it is stored; if not, the note stays, and who looks decides.

        Args:
            target: the object.
            source: the file.
            part_size: of each part, in bytes; larger ones where there would be too many.
            note: where the upload is noted; no note is there now.
            described: the arguments of PutObject and of Create alike.
            conditional: whether an object at the key must not be replaced.

        Raises:
            StoreError: it was not completed, with status 412 where the key was taken; the upload is aborted, or still noted.
        """
        upload_id = await self._begin(target, note, described)
        try:
            parts = []
            for number, (start, size) in enumerate(_ranges(target.size, part_size), 1):
                body = await asyncio.to_thread(body_to_send, source, start, size)
                parts.append(await self._send_part(target, upload_id, number, body))
            is_proved = await self._complete(target, upload_id, parts, conditional=conditional)
        except (StoreError, OSError):
            # What cannot be aborted now is aborted by the next attempt, which finds the note.
            with contextlib.suppress(StoreError):
                await self.abandon(note, _noted(target, upload_id))
            raise
        except asyncio.CancelledError:
            if not _is_noted(note):
                # The next start would not know of it.
                with contextlib.suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await self._abort(_noted(target, upload_id))
            raise
        if is_proved:
            await self.forget(note)
        return is_proved

    async def try_out(self, proof: Object, note: Path, described: dict[str, Any], *, conditional: bool) -> bool:
        """Try each step of an upload, and return whether Complete refuses to replace an object.

        Args:
            proof: an object of the gateway's own, which may be replaced.
            note: see `put`.
            described: likewise.
            conditional: likewise; without it nothing is completed.

        Raises:
            StoreError: a step does not work; the upload is aborted, or still noted.
        """
        was_taken_without = False
        # Whatever was at the key before, the second time there is something.
        for _ in range(2 if conditional else 1):
            try:
                if await self._is_refused(proof, note, described, conditional=conditional):
                    return True
            except StoreError as error:
                if not conditional or not may_be_of_the_condition(error):
                    raise
                if was_taken_without:
                    return False
                # Said of the condition only if the same upload is completed without it, and never with it.
                await self._is_refused(proof, note, described, conditional=False, complete=True)
                was_taken_without = True
        return False

    async def _is_refused(
        self, proof: Object, note: Path, described: dict[str, Any], *, conditional: bool, complete: bool = False
    ) -> bool:
        upload_id = await self._begin(proof, note, described)
        try:
            part = await self._send_part(proof, upload_id, 1, body_to_send(b"\n", 0, 1))
            if conditional or complete:
                await self._complete(proof, upload_id, [part], conditional=conditional)
        except StoreError as error:
            await self.abandon(note, _noted(proof, upload_id))
            if error.status == 412:
                return True
            raise
        await self.abandon(note, _noted(proof, upload_id))
        return False

    async def abandon(self, note: Path, begun: dict[str, str] | None = None) -> None:
        """Abort the upload that a note names, or the one that was begun and could not be noted; then remove the note."""
        noted = await asyncio.to_thread(_read_note, note) or begun
        if noted is not None:
            await self._abort(noted)
        await self.forget(note)

    async def forget(self, note: Path) -> None:
        """Remove the note of an upload that is over."""
        await asyncio.to_thread(_remove_note, note)

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _begin(self, target: Object, note: Path, described: dict[str, Any]) -> str:
        doing = f"beginning the upload of {target.key}"
        # Without the name of the algorithm S3 takes none of the parts that carry its checksums.
        algorithm = {"ChecksumAlgorithm": "CRC32"} if self._checksums else {}
        answer = await self._calls.call("create_multipart_upload", doing, described | algorithm)
        upload_id = str(answer.get("UploadId") or "")
        if not upload_id:
            raise Transient(missing("UploadId", doing, answer))
        noted = _noted(target, upload_id)
        try:
            await asyncio.to_thread(_write_note, note, orjson.dumps(noted))
        except OSError as error:
            if is_full(error):
                # What waits must be able to leave; if this process is killed, the bucket's lifecycle rule finds the parts.
                return upload_id
            with contextlib.suppress(StoreError):
                await self._abort(noted)
            raise Transient(f"the upload of {target.key} cannot be noted on disk: {error}") from error
        return upload_id

    async def _send_part(self, target: Object, upload_id: str, number: int, body: Body) -> _Part:
        doing = f"putting part {number} of {target.key}"
        checksum = self._checksum(body)
        place = {"Bucket": target.bucket, "Key": target.key, "UploadId": upload_id}
        arguments = {**place, "PartNumber": number, "ContentLength": body.size, **checksum}
        with body_of(body.source, body.start, body.size) as source:
            answer = await self._calls.call("upload_part", doing, arguments, source)
        if not etag_of(answer):
            raise Transient(missing("ETag", doing, answer))
        listed = {"PartNumber": number, "ETag": answer["ETag"], **checksum}
        return _Part(listed, body.crc32, await asyncio.to_thread(is_kept, answer, body))

    def _checksum(self, body: Body) -> dict[str, str]:
        return {"ChecksumCRC32": body.checksum()} if self._checksums else {}

    async def _complete(self, target: Object, upload_id: str, parts: Sequence[_Part], *, conditional: bool) -> bool:
        """Make the parts one object. A 200 that carries an error in its body is raised by botocore as the error it is."""
        place = {"Bucket": target.bucket, "Key": target.key, "UploadId": upload_id}
        listed = {"MultipartUpload": {"Parts": [part.listed for part in parts]}}
        condition = {"IfNoneMatch": "*"} if conditional else {}
        doing = f"completing the upload of {target.key}"
        completed = await self._calls.call("complete_multipart_upload", doing, place | listed | condition)
        etags = [etag_of(part.listed) for part in parts]
        return all(part.is_kept for part in parts) and is_composed(completed, etags, [part.crc32 for part in parts])

    async def _abort(self, noted: dict[str, str]) -> None:
        doing = f"aborting an upload of {noted['key']}"
        place = {"Bucket": noted["bucket"], "Key": noted["key"], "UploadId": noted["upload_id"]}
        try:
            answer = await self._calls.call("abort_multipart_upload", doing, place)
        except StoreError as error:
            if error.status == 403:
                raise Refused(f"{error}: the role needs s3:AbortMultipartUpload", status=403, code=error.code) from error
            if error.status != 404:
                raise
        else:
            if not is_own(answer):
                # Parts that stay are paid for, and nobody would look for them again.
                raise Transient(missing("any field of S3's own", doing, answer))


def _ranges(size: int, part_size: int) -> Iterator[tuple[int, int]]:
    """Where each part begins, and its bytes."""
    part_size = max(part_size, -(-size // MAX_PARTS))
    for start in range(0, size, part_size):
        yield start, min(part_size, size - start)


def _noted(target: Object, upload_id: str) -> dict[str, str]:
    return {"bucket": target.bucket, "key": target.key, "upload_id": upload_id}


def _is_noted(note: Path) -> bool:
    return note.exists()


def _write_note(note: Path, data: bytes) -> None:
    disk.write_file(note, data)
    disk.sync_directory(note.parent)


def _read_note(note: Path) -> dict[str, str] | None:
    """What a note says; None if a crash tore it, and then only the bucket's lifecycle rule knows of the upload."""
    try:
        noted = orjson.loads(b"".join(disk.read_chunks(note)))
        return {name: str(noted[name]) for name in ("bucket", "key", "upload_id")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _remove_note(note: Path) -> None:
    disk.remove(note)
    disk.sync_directory(note.parent)
