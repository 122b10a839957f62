"""Uploads in parts: begun, noted on disk, sent, completed or aborted.

The note stands beside the file from before the first part until the upload is over, so that no crash leaves parts in the
store that nobody would ever abort. While the store is away, slow or busy it stays: the next attempt, of this process or of a
later one, asks which parts have arrived, and sends the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gateway.aws.call import Calls, missing
from gateway.aws.errors import may_be_of_the_condition
from gateway.core import disk
from gateway.core.errors import Refused, StoreError, Throttled, Transient, is_full
from gateway.spool import names
from gateway.stores import Object
from gateway.stores.file_slice import body_of
from gateway.stores.s3.evidence import Body, body_to_send, etag_of, is_composed, is_kept, is_own

MAX_PARTS = 10_000
# For the abort of an upload that no note names, when the gateway stops.
_FAREWELL_S = 2.0
# There is no such upload; or the key is taken, or is being written by another, and then S3 wants the upload begun anew.
_OVER_STATUSES = frozenset({404, 409, 412})
# So often an upload is gone on with of which no further part has arrived.
_STUCK_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that was sent: as Complete lists it, its CRC-32, and whether its answer proves it."""

    listed: dict[str, Any]
    crc32: int
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload that goes on, or has just begun.

    Attributes:
        upload_id: the store's name for it.
        arrived: what the store says of each part that earlier attempts have sent, by number.
        is_whole: whether these are all.
    """

    upload_id: str
    arrived: dict[int, dict[str, Any]] = field(default_factory=dict)
    is_whole: bool = False


class Uploads:
    """Sends objects in parts.

    Args:
        calls: to the store.
        checksums: whether parts carry a checksum. Create, each part and Complete have to agree on it.
    """

    def __init__(self, calls: Calls, *, checksums: bool) -> None:
        self._calls = calls
        self._checksums = checksums
        # By upload: how many parts had arrived when it was gone on with, and how often there were no more.
        self._stuck: dict[str, tuple[int, int]] = {}

    @staticmethod
    def note_of(source: Path) -> Path:
        """Where the note of a file's upload stands."""
        return source.with_name(f"{source.name}.{names.UPLOAD_NOTE}")

    async def put(
        self,
        target: Object,
        source: Path,
        part_size: int,
        note: Path,
        described: dict[str, Any],
        begun: Begun | None = None,
        *,
        conditional: bool,
    ) -> bool:
        """Send a file, and return whether the answers prove that it is stored; if not, the note stays, and a look decides.

        Args:
            target: the object.
            source: the file.
            part_size: of each part, in bytes; larger ones where there would be too many.
            note: where the upload is noted; no note is there but that of `begun`.
            described: the arguments of PutObject and of Create alike.
            begun: the upload to go on with; None for a new one.
            conditional: whether an object at the key must not be replaced.

        Raises:
            StoreError: it was not completed, with status 412 where the key was taken; the upload is aborted, or still noted.
        """
        if begun is None:
            begun = Begun(await self._begin(target, note, described, part_size))
        upload_id = begun.upload_id
        try:
            parts = []
            for number, (start, size) in enumerate(_ranges(target.size, part_size), 1):
                body = await asyncio.to_thread(body_to_send, source, start, size)
                part = await asyncio.to_thread(self._kept_part, begun.arrived.get(number), body)
                parts.append(part or await self._send_part(target, upload_id, number, body))
            is_proved = await self._complete(target, upload_id, parts, conditional=conditional)
        except (StoreError, OSError) as error:
            # What cannot be aborted now is aborted by the next attempt, which finds the note.
            if _is_over(error, begun) or not await asyncio.to_thread(_is_noted, note):
                with contextlib.suppress(StoreError):
                    await self.abandon(note, self._noted(target, upload_id, part_size, described))
            raise
        except asyncio.CancelledError:
            if not _is_noted(note):
                # The next start would not know of it.
                with contextlib.suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await self._abort(self._noted(target, upload_id, part_size, described))
            raise
        self._stuck.pop(upload_id, None)
        if is_proved:
            await self.forget(note)
        return is_proved

    async def resume(self, target: Object, note: Path, part_size: int, described: dict[str, Any]) -> Begun | None:
        """The upload that a note names, with the parts of it that have arrived; None where there is none to go on with.

        One of another object, described otherwise, or in other parts, that the store does not know, or not show, or of which
        nothing more arrives, is over, and its note gone.
        """
        noted = await asyncio.to_thread(_read_note, note)
        if noted is not None and noted == self._noted(target, noted["upload_id"], part_size, described):
            try:
                arrived = await self._arrived(noted)
            except StoreError as error:
                # A store that is busy or away says nothing of the upload; one that has just answered a look does.
                if isinstance(error, Throttled) or (isinstance(error, Transient) and error.status == 0):
                    raise
            else:
                if not self._is_stuck(noted["upload_id"], len(arrived)):
                    numbers = range(1, 1 + sum(1 for _ in _ranges(target.size, part_size)))
                    return Begun(noted["upload_id"], arrived, all(number in arrived for number in numbers))
        if noted is not None:
            self._stuck.pop(noted["upload_id"], None)
        await self.abandon(note)
        return None

    def _is_stuck(self, upload_id: str, arrived: int) -> bool:
        before, attempts = self._stuck.get(upload_id, (-1, 0))
        self._stuck[upload_id] = arrived, attempts + 1 if arrived == before else 0
        return self._stuck[upload_id][1] >= _STUCK_ATTEMPTS

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
            await self.abandon(note, self._noted(proof, upload_id, 0, described))
            if error.status == 412:
                return True
            raise
        await self.abandon(note, self._noted(proof, upload_id, 0, described))
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

    def _noted(self, target: Object, upload_id: str, part_size: int, described: dict[str, Any]) -> dict[str, str]:
        """What a note says: which upload it is, and of what in which parts, so that only that goes on with it."""
        settings = zlib.crc32(orjson.dumps([self._checksums, described], option=orjson.OPT_SORT_KEYS))
        return {
            "bucket": target.bucket,
            "key": target.key,
            "upload_id": upload_id,
            "object": f"{target.metadata.get(target.identity, '')} {target.size} {part_size} {settings:08x}",
        }

    async def _arrived(self, noted: dict[str, str]) -> dict[int, dict[str, Any]]:
        doing = f"looking for the parts of {noted['key']}"
        place = {"Bucket": noted["bucket"], "Key": noted["key"], "UploadId": noted["upload_id"]}
        arrived: dict[int, dict[str, Any]] = {}
        marker = 0
        while True:
            answer = await self._calls.call("list_parts", doing, place | {"PartNumberMarker": marker})
            if not is_own(answer):
                raise Transient(missing("any field of S3's own", doing, answer), status=200)
            arrived |= {part["PartNumber"]: part for part in answer.get("Parts", ()) if {"PartNumber", "ETag"} <= part.keys()}
            after = int(answer.get("NextPartNumberMarker") or 0)
            if not answer.get("IsTruncated") or not marker < after <= MAX_PARTS:
                return arrived
            marker = after

    def _kept_part(self, arrived: dict[str, Any] | None, body: Body) -> _Part | None:
        """The part of an earlier attempt, if the store's list proves that it is this one; reads the body, and blocks."""
        if arrived is None or arrived.get("Size") != body.size or not is_kept(arrived, body):
            return None
        return _Part({"PartNumber": arrived["PartNumber"], "ETag": arrived["ETag"], **self._checksum(body)}, body.crc32, True)

    async def _begin(self, target: Object, note: Path, described: dict[str, Any], part_size: int = 0) -> str:
        doing = f"beginning the upload of {target.key}"
        # Without the name of the algorithm S3 takes none of the parts that carry its checksums.
        algorithm = {"ChecksumAlgorithm": "CRC32"} if self._checksums else {}
        answer = await self._calls.call("create_multipart_upload", doing, described | algorithm)
        upload_id = str(answer.get("UploadId") or "")
        if not upload_id:
            raise Transient(missing("UploadId", doing, answer))
        noted = self._noted(target, upload_id, part_size, described)
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


def _is_over(error: StoreError | OSError, begun: Begun) -> bool:
    """Whether an attempt has failed in a way that no later one can go on from.

    Where all parts had arrived before it, Complete alone has failed: what is wrong with them, none of their answers has said.
    """
    if not isinstance(error, Transient) or error.status in _OVER_STATUSES:
        return True
    return begun.is_whole and error.status != 0 and not isinstance(error, Throttled)


def _is_noted(note: Path) -> bool:
    return note.exists()


def _write_note(note: Path, data: bytes) -> None:
    disk.write_file(note, data)
    disk.sync_directory(note.parent)


def _read_note(note: Path) -> dict[str, str] | None:
    """What a note says; None if a crash tore it, and then only the bucket's lifecycle rule knows of the upload."""
    try:
        noted = orjson.loads(b"".join(disk.read_chunks(note)))
        # Before uploads went on with what had arrived, notes did not say of what they were.
        return {name: str(noted[name]) for name in ("bucket", "key", "upload_id")} | {"object": str(noted.get("object", ""))}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _remove_note(note: Path) -> None:
    disk.remove(note)
    disk.sync_directory(note.parent)
