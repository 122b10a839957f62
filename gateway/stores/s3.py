"""A store in S3, or in what speaks its language.

An object below the part size is one PUT, a larger one is sent in parts from the file. Both carry `If-None-Match: *`, so that
the store itself refuses to replace; what stands at a taken key is asked with HEAD.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import ClientError, NoCredentialsError

from gateway import disk, names
from gateway.errors import ObjectRefused, Refused, StoreError, Transient
from gateway.stores import Object, Outcome
from gateway.stores.file_slice import body_of
from gateway.stores.s3_errors import code_of, explain, status_of
from gateway.stores.silence import unless_silent

MAX_PARTS = 10_000
# A name that Athena, Hive and Spark pass over, as they do with every name that begins with a dot.
PROOF_KEY = ".lightfile6-insights-gateway-proof"
PROOF = {"proof": "1"}


@dataclass(frozen=True, slots=True)
class S3Options:
    """How objects are put.

    Attributes:
        part_size: bytes from which an object is sent in parts of that size.
        conditional_put: `auto` proves it, `on` and `off` trust the operator.
        patience_s: how long the store may neither take anything of a body nor answer.
        extra: arguments of PutObject and CreateMultipartUpload for storage class and encryption.
    """

    part_size: int
    conditional_put: str
    patience_s: float
    extra: dict[str, str]


class S3Store:
    """Keeps objects in S3.

    Args:
        connect: makes the client's context manager; called once, at the first use.
        options: see `S3Options`.
    """

    def __init__(self, connect: Callable[[], Any], options: S3Options) -> None:
        self._connect = connect
        self._options = options
        self._exits = contextlib.AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._proved: dict[str, bool] = {}
        self._proving: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def connect(self) -> Any:
        """The client, made at the first call; making it takes some 70 ms and no network. StoreError if it cannot be made."""
        async with self._connecting:
            if self._client is None:
                try:
                    self._client = await self._exits.enter_async_context(self._connect())
                except Exception as error:
                    raise explain(error, "preparing to talk to S3") from error
        return self._client

    async def close(self) -> None:
        """Close the connections."""
        self._client = None
        exits, self._exits = self._exits, contextlib.AsyncExitStack()
        await exits.aclose()

    async def _explained(self, error: Exception, doing: str) -> StoreError:
        """What an error means. A client that found no credentials never looks for them again, so it is given up."""
        if isinstance(error, NoCredentialsError):
            await self.close()
        return explain(error, doing)

    # --- does the store honour If-None-Match, and know its objects again ---------------------------------------------

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """See `Store.honours_condition`. The proof puts one small object of the gateway's own twice."""
        if self._options.conditional_put != "auto":
            return self._options.conditional_put == "on"
        known = self._proved.get(bucket)
        if known is None:
            # A lock for each bucket: one that hangs must not hold up the others.
            async with self._proving[bucket]:
                known = self._proved.get(bucket)
                if known is None:
                    known = self._proved[bucket] = await self._prove(bucket, prefix + PROOF_KEY)
        return known

    async def _prove(self, bucket: str, key: str) -> bool:
        """The second put at the latest finds the key taken; a store that takes it again does not honour the condition."""
        client = await self.connect()
        for _ in range(2):
            try:
                put = client.put_object(Bucket=bucket, Key=key, Body=b"", IfNoneMatch="*", Metadata=PROOF, **self._options.extra)
                await unless_silent(put, lambda: 0, self._options.patience_s)
            except Exception as error:
                if status_of(error) == 412:
                    return await self._gives_metadata_back(bucket, key)
                if status_of(error) == 501:
                    # "Not implemented" is said of the condition: the header is all that is special in this request.
                    return False
                raise await self._explained(error, f"proving If-None-Match in bucket {bucket}") from error
        return False

    async def _gives_metadata_back(self, bucket: str, key: str) -> bool:
        """Without its metadata an object whose answer was lost would be taken for a stranger's, and be put once more."""
        client = await self.connect()
        try:
            answer = await client.head_object(Bucket=bucket, Key=key)
        except Exception as error:
            if status_of(error) == 403:
                # Who may not look hears of it when a key is taken, and nothing is put a second time then.
                return True
            if status_of(error) == 404:
                raise Transient(f"the proof in bucket {bucket} was there and is gone") from error
            raise await self._explained(error, f"looking at the proof in bucket {bucket}") from error
        return {name.lower(): value for name, value in answer.get("Metadata", {}).items()} == PROOF

    # --- put --------------------------------------------------------------------------------------------------------

    async def put(self, target: Object) -> Outcome:
        """See `Store.put`."""
        if isinstance(target.source, bytes) or target.size < self._options.part_size:
            return await self._put_whole(target)
        return await self._put_in_parts(target, target.source)

    async def _put_whole(self, target: Object) -> Outcome:
        client = await self.connect()
        with body_of(target.source, 0, target.size) as body:
            try:
                put = client.put_object(
                    Body=body, ContentLength=target.size, **self._condition(target), **self._described(target)
                )
                await unless_silent(put, body.tell, self._options.patience_s)
            except Exception as error:
                if status_of(error) == 412:
                    return await self._whose(target)
                raise await self._explained(error, f"putting {target.key}") from error
        return Outcome.STORED

    def _condition(self, target: Object) -> dict[str, str]:
        """Nothing where the store is known not to honour it: some answer 501 to the header, and keys cannot collide there."""
        ignored = self._options.conditional_put == "off" or self._proved.get(target.bucket) is False
        return {} if ignored else {"IfNoneMatch": "*"}

    def _described(self, target: Object) -> dict[str, Any]:
        return {
            "Bucket": target.bucket,
            "Key": target.key,
            "ContentType": target.content_type,
            "Metadata": dict(target.metadata),
            **self._options.extra,
        }

    # --- who has the key --------------------------------------------------------------------------------------------

    async def _whose(self, target: Object) -> Outcome:
        """The key is taken: by this very object (an answer was lost), or by another."""
        found = await self._head(target)
        if found is None:
            # Refused as taken and yet not there: deleted meanwhile, or an earlier put of ours still runs. The same key.
            raise Transient(f"{target.key} was taken and is gone")
        if not target.is_held_as(found):
            return Outcome.TAKEN
        if differing := target.differences(found):
            raise ObjectRefused(f"{target.key} is this object with other content ({', '.join(differing)})")
        return Outcome.PRESENT

    async def holds(self, target: Object) -> bool:
        """See `Store.holds`."""
        found = await self._head(target)
        return found is not None and target.is_held_as(found)

    async def is_free(self, target: Object) -> bool:
        """See `Store.is_free`."""
        try:
            return await self._head(target) is None
        except Refused:
            # Without s3:ListBucket S3 says 403 of what is missing, too.
            return True

    async def _head(self, target: Object) -> dict[str, str] | None:
        client = await self.connect()
        try:
            answer = await client.head_object(Bucket=target.bucket, Key=target.key)
        except Exception as error:
            if status_of(error) == 404:
                return None
            if status_of(error) == 403:
                raise Refused(
                    f"{target.key} is taken and cannot be looked at, so it is not known whether it is ours: "
                    "the role needs s3:GetObject (and s3:ListBucket, to be told what is missing)"
                ) from error
            raise await self._explained(error, f"looking at {target.key}") from error
        return {name.lower(): value for name, value in answer.get("Metadata", {}).items()}

    # --- in parts ---------------------------------------------------------------------------------------------------

    async def _put_in_parts(self, target: Object, source: Path) -> Outcome:
        note = source.with_name(f"{source.name}.{names.UPLOAD_NOTE}")
        if note.exists():
            # An earlier process or attempt got as far as this, and its last call may have succeeded unheard.
            if await self._holds_if_it_may_look(target):
                await self._abandon(note)
                return await self._whose(target)
            await self._abandon(note)
        upload_id = await self._begin(target, note)
        try:
            outcome = await self._complete(target, upload_id, await self._send_parts(target, source, upload_id))
        except Exception as error:
            if await self._finished_unheard(target, error):
                await self._abandon(note)
                return Outcome.PRESENT
            # What cannot be aborted now is aborted by the next attempt, which finds the note.
            with contextlib.suppress(StoreError):
                await self._abandon(note)
            raise error if isinstance(error, StoreError) else explain(error, f"putting {target.key}") from error
        if outcome is Outcome.STORED:
            await asyncio.to_thread(_forget, note)
        else:
            await self._abandon(note)
        return outcome

    async def _begin(self, target: Object, note: Path) -> str:
        """Begin an upload in parts. Its id is on disk before the first part is sent, so that no crash leaves parts behind."""
        client = await self.connect()
        try:
            answer = await client.create_multipart_upload(**self._described(target))
        except Exception as error:
            raise await self._explained(error, f"beginning the upload of {target.key}") from error
        upload_id: str = answer["UploadId"]
        noted = {"bucket": target.bucket, "key": target.key, "upload_id": upload_id}
        try:
            await asyncio.to_thread(_write_note, note, orjson.dumps(noted))
        except OSError as error:
            with contextlib.suppress(StoreError):
                await self._abort(noted)
            raise Transient(f"the upload of {target.key} cannot be noted on disk: {error}") from error
        return upload_id

    async def _send_parts(self, target: Object, source: Path, upload_id: str) -> list[dict[str, Any]]:
        client = await self.connect()
        part_size = max(self._options.part_size, -(-target.size // MAX_PARTS))
        parts = []
        for number, start in enumerate(range(0, target.size, part_size), 1):
            size = min(part_size, target.size - start)
            with body_of(source, start, size) as body:
                sending = client.upload_part(
                    Bucket=target.bucket,
                    Key=target.key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=body,
                    ContentLength=size,
                )
                answer = await unless_silent(sending, body.tell, self._options.patience_s)
            checksums = {name: value for name, value in answer.items() if name in _PART_CHECKSUMS}
            parts.append({"PartNumber": number, "ETag": answer["ETag"], **checksums})
        return parts

    async def _complete(self, target: Object, upload_id: str, parts: list[dict[str, Any]]) -> Outcome:
        """Make the parts one object. A 200 that carries an error in its body is raised by botocore as the error it is."""
        client = await self.connect()
        try:
            await client.complete_multipart_upload(
                Bucket=target.bucket,
                Key=target.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **self._condition(target),
            )
        except ClientError as error:
            if status_of(error) == 412:
                return await self._whose(target)
            raise
        return Outcome.STORED

    async def _finished_unheard(self, target: Object, error: Exception) -> bool:
        """An upload that is no longer there was completed, by an earlier call whose answer was lost, or aborted."""
        return code_of(error) == "NoSuchUpload" and await self.holds(target)

    async def _holds_if_it_may_look(self, target: Object) -> bool:
        try:
            return await self.holds(target)
        except Refused:
            return False

    async def _abandon(self, note: Path) -> None:
        """Abort the upload that a note tells of, then remove the note."""
        noted = await asyncio.to_thread(_read_note, note)
        if noted is not None:
            await self._abort(noted)
        await asyncio.to_thread(_forget, note)

    async def _abort(self, noted: dict[str, str]) -> None:
        client = await self.connect()
        try:
            await client.abort_multipart_upload(Bucket=noted["bucket"], Key=noted["key"], UploadId=noted["upload_id"])
        except Exception as error:
            if status_of(error) != 404:
                raise explain(error, f"aborting an upload of {noted['key']}") from error


_PART_CHECKSUMS = frozenset({"ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256"})


def _write_note(note: Path, data: bytes) -> None:
    disk.write_file(note, data)
    disk.sync_directory(note.parent)


def _read_note(note: Path) -> dict[str, str] | None:
    """What a note says; None if a crash tore it, and then only the bucket's lifecycle rule knows of the upload."""
    try:
        noted = orjson.loads(note.read_bytes())
        return {name: str(noted[name]) for name in ("bucket", "key", "upload_id")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _forget(note: Path) -> None:
    disk.remove(note)
    disk.sync_directory(note.parent)
