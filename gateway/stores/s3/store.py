"""A store in S3, or in what speaks its language.

An object below the part size is one PUT, a larger one is sent in parts from the file. Both carry `If-None-Match: *`, so that
the store itself refuses to replace; what stands at a taken key is asked with HEAD. Nothing counts as stored because no error
came: see `stores/s3/evidence.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.aws.call import Calls
from gateway.aws.errors import may_be_of_the_condition
from gateway.core.errors import ObjectRefused, Refused, StoreError, Transient
from gateway.stores import Object, Outcome
from gateway.stores.file_slice import body_of
from gateway.stores.s3.evidence import Body, Sight, body_to_send, contradicts, is_kept, sight_of
from gateway.stores.s3.uploads import Uploads

# A name that Athena, Hive and Spark pass over, as they do with every name that begins with a dot.
PROOF_KEY = ".lightfile6-insights-gateway-proof"
PROOF = {"proof": "1"}


@dataclass(frozen=True, slots=True)
class S3Options:
    """How objects are put.

    Attributes:
        part_size: bytes from which an object is sent in parts of that size.
        conditional_put: `auto` proves it, `on` demands it, `off` does without.
        checksums: whether bodies carry a checksum.
        patience_s: how long the store may neither take anything of a body nor answer.
        extra: arguments of PutObject and CreateMultipartUpload for storage class and encryption.
    """

    part_size: int
    conditional_put: str
    checksums: bool
    patience_s: float
    extra: dict[str, str]


class S3Store:
    """Keeps objects in S3.

    Args:
        connect: makes a client's context manager.
        options: see `S3Options`.
    """

    def __init__(self, connect: Callable[[], Any], options: S3Options) -> None:
        self._options = options
        self._calls = Calls(connect, options.patience_s)
        self._uploads = Uploads(self._calls, checksums=options.checksums)
        # By bucket and prefix, since a policy may treat one prefix of a bucket unlike another.
        self._proved: dict[tuple[str, str], bool] = {}
        self._proving: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        # Buckets in which CompleteMultipartUpload was seen to honour the condition, and those that honour none.
        self._complete_proved: set[str] = set()
        self._unconditional: set[str] = set()

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()

    # --- does the store keep what it is given, honour If-None-Match, and know its objects again ---------------------

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """See `Store.honours_condition`. The proof puts one small object of the gateway's own twice, and looks at it."""
        if bucket in self._unconditional:
            return False
        known = self._proved.get((bucket, prefix))
        if known is None:
            # A lock for each: one that hangs must not hold up the others.
            async with self._proving[bucket, prefix]:
                known = self._proved.get((bucket, prefix))
                if known is None:
                    known = self._proved[bucket, prefix] = await self._prove(_proof_object(bucket, prefix))
                    if not known:
                        self._unconditional.add(bucket)
        return known

    async def prove_parts(self, bucket: str, prefix: str, note: Path) -> None:
        """Try the steps of an upload in parts, as the first large object does; what is made is removed again.

        Args:
            bucket: proved by `honours_condition` before.
            prefix: likewise.
            note: a name for a file, in a directory that is there; what a failure leaves in the store stands in it.

        Raises:
            StoreError: a step does not work.
        """
        proof = _proof_object(bucket, prefix)
        conditional = self._is_conditional(proof)
        if not await self._uploads.try_out(proof, note, self._described(proof), conditional=conditional):
            if self._options.conditional_put == "on":
                raise Refused(_REPLACES_ALL_THE_SAME.format(bucket))
            self._unconditional.add(bucket)
        self._complete_proved.add(bucket)

    async def _prove(self, proof: Object) -> bool:
        """The second put at the latest finds the key taken; a store that takes it again does not honour the condition."""
        doing = f"proving bucket {proof.bucket}"
        if self._options.conditional_put == "off":
            await self._put_proof(proof, doing, conditional=False)
            return False
        honoured = await self._is_refused_when_taken(proof, doing)
        if honoured:
            sight = await self._look(proof)
            if sight is None:
                raise Transient(f"{doing}: the proof {proof.key} was there and is gone")
            # Without its metadata an object whose answer was lost would be taken for a stranger's, and be put once more.
            honoured = sight.metadata == PROOF
            if not honoured and not sight.is_own:
                raise Transient(_not_a_store(doing))
        if not honoured and self._options.conditional_put == "on":
            raise Refused(_REPLACES_ALL_THE_SAME.format(proof.bucket))
        return honoured

    async def _is_refused_when_taken(self, proof: Object, doing: str) -> bool:
        was_taken_without = False
        for _ in range(2):
            try:
                await self._put_proof(proof, doing, conditional=True)
            except StoreError as error:
                if error.status == 412:
                    return True
                if not may_be_of_the_condition(error):
                    raise
                if was_taken_without:
                    return False
                # Said of the condition only if the same put is taken without it, and never with it: else of encryption, say.
                await self._put_proof(proof, doing, conditional=False)
                was_taken_without = True
        return False

    async def _put_proof(self, proof: Object, doing: str, *, conditional: bool) -> None:
        body = await asyncio.to_thread(body_to_send, b"", 0, 0)
        answer = await self._send(proof, body, doing, conditional=conditional)
        if not await asyncio.to_thread(is_kept, answer, body):
            await self._must_be_there(proof, doing)

    # --- put --------------------------------------------------------------------------------------------------------

    async def put(self, target: Object) -> Outcome:
        """See `Store.put`."""
        if not isinstance(target.source, Path):
            return await self._put_whole(target)
        if target.size >= self._options.part_size:
            return await self._put_in_parts(target, target.source)
        if (note := self._uploads.note_of(target.source)).exists():
            # Of a time when parts were smaller.
            is_there = await self._holds_if_it_may_look(target)
            await self._uploads.abandon(note)
            if is_there:
                return await self._whose(target)
        return await self._put_whole(target)

    async def _put_whole(self, target: Object) -> Outcome:
        doing = f"putting {target.key}"
        body = await asyncio.to_thread(body_to_send, target.source, 0, target.size)
        try:
            answer = await self._send(target, body, doing, conditional=self._is_conditional(target))
        except StoreError as error:
            if error.status == 412:
                return await self._whose(target)
            raise
        if contradicts(answer, body):
            raise Transient(f"{doing}: was answered with the checksum of other bytes")
        if not await asyncio.to_thread(is_kept, answer, body):
            await self._must_be_there(target, doing)
        return Outcome.STORED

    async def _send(self, target: Object, body: Body, doing: str, *, conditional: bool) -> dict[str, Any]:
        checksum = {"ChecksumCRC32": body.checksum()} if self._options.checksums else {}
        condition = {"IfNoneMatch": "*"} if conditional else {}
        with body_of(target.source, 0, target.size) as source:
            arguments = {"ContentLength": target.size, **checksum, **condition, **self._described(target)}
            return await self._calls.call("put_object", doing, arguments, source)

    def _is_conditional(self, target: Object) -> bool:
        """Not where the store is known not to honour it: some answer 501 to the header, and keys cannot collide there."""
        return self._options.conditional_put != "off" and target.bucket not in self._unconditional

    def _described(self, target: Object) -> dict[str, Any]:
        return {
            "Bucket": target.bucket,
            "Key": target.key,
            "ContentType": target.content_type,
            "Metadata": dict(target.metadata),
            **self._options.extra,
        }

    # --- in parts ---------------------------------------------------------------------------------------------------

    async def _put_in_parts(self, target: Object, source: Path) -> Outcome:
        note = self._uploads.note_of(source)
        begun = None
        if note.exists():
            # An earlier process or attempt got as far as this, and its last call may have succeeded unheard.
            if await self._holds_if_it_may_look(target):
                await self._uploads.abandon(note)
                return await self._whose(target)
            # What it proved of the bucket before it began is proved still.
            begun = await self._uploads.resume(target, note, self._options.part_size, self._described(target))
        if begun is None:
            await self._prove_complete(target, note)
        described, conditional = self._described(target), self._is_conditional(target)
        try:
            is_proved = await self._uploads.put(
                target, source, self._options.part_size, note, described, begun, conditional=conditional
            )
        except StoreError as error:
            if error.status == 412:
                if note.exists():
                    # It could not be aborted, and under another number nobody would know of it.
                    await self._uploads.abandon(note)
                return await self._whose(target)
            if error.code == "NoSuchUpload" and await self.holds(target):
                # It was completed by an earlier call whose answer was lost.
                return Outcome.PRESENT
            raise
        if not is_proved:
            await self._look_behind_complete(target, note)
        return Outcome.STORED

    async def _look_behind_complete(self, target: Object, note: Path) -> None:
        try:
            await self._must_be_there(target, f"putting {target.key}")
        except StoreError:
            # It may not have been completed: then its parts are still there.
            with contextlib.suppress(StoreError):
                await self._uploads.abandon(note)
            raise
        await self._uploads.forget(note)

    async def _prove_complete(self, target: Object, note: Path) -> None:
        """Before the first upload to a bucket: a store may refuse to replace by PutObject, and replace by Complete."""
        proved = [prefix for bucket, prefix in self._proved if bucket == target.bucket and target.key.startswith(prefix)]
        if not proved or not self._is_conditional(target) or target.bucket in self._complete_proved:
            return
        await self.prove_parts(target.bucket, proved[0], note)
        if target.bucket in self._unconditional:
            # Under a key with its own id, from the next attempt on.
            raise Transient(f"putting {target.key}: in bucket {target.bucket} an upload in parts replaces what it finds")

    async def _holds_if_it_may_look(self, target: Object) -> bool:
        try:
            return await self.holds(target)
        except Refused:
            return False

    # --- what has the key --------------------------------------------------------------------------------------------

    async def _must_be_there(self, target: Object, doing: str) -> None:
        """After a success that proves nothing: return only if this very object is at its key."""
        sight = await self._look(target)
        if sight is None:
            raise Transient(f"{doing}: was answered as stored, and it is not there")
        if target.is_held_as(sight.metadata) and sight.size == target.size:
            return
        if not sight.is_own:
            raise Transient(_not_a_store(doing))
        if sight.size != target.size or target.identity in sight.metadata:
            raise Transient(f"{doing}: was answered as stored, and another object is there")
        raise Refused(
            f"{doing}: was answered as stored, without a checksum or an ETag that is its MD5, and a look shows no metadata: "
            "the store has to give one of these back"
        )

    async def _whose(self, target: Object) -> Outcome:
        """The key is taken: by this very object (an answer was lost), or by another."""
        sight = await self._look(target)
        if sight is None:
            # Refused as taken and yet not there: deleted meanwhile, or an earlier put of ours still runs. The same key.
            raise Transient(f"{target.key} was taken and is gone")
        if not target.is_held_as(sight.metadata):
            _must_be_own(sight, target)
            return Outcome.TAKEN
        differing = target.differences(sight.metadata)
        if not _has_size(target, sight):
            differing.append(f"size {sight.size} for {target.size}")
        if differing:
            raise ObjectRefused(f"{target.key} is this object with other content ({', '.join(differing)})")
        return Outcome.PRESENT

    async def holds(self, target: Object) -> bool:
        """See `Store.holds`."""
        sight = await self._look(target)
        return sight is not None and target.is_held_as(sight.metadata) and _has_size(target, sight)

    async def is_free(self, target: Object) -> bool:
        """See `Store.is_free`."""
        try:
            sight = await self._look(target)
        except Refused:
            # Without s3:ListBucket S3 says 403 of what is missing, too.
            return True
        if sight is not None and not target.is_held_as(sight.metadata):
            _must_be_own(sight, target)
        return sight is None

    async def _look(self, target: Object) -> Sight | None:
        try:
            place = {"Bucket": target.bucket, "Key": target.key}
            answer = await self._calls.call("head_object", f"looking at {target.key}", place)
        except StoreError as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise Refused(
                    f"{target.key} cannot be looked at, so it is not known whether it is there: "
                    "the role needs s3:GetObject (and s3:ListBucket, to learn what is missing)",
                    status=403,
                    code=error.code,
                ) from error
            raise
        return sight_of(answer)


_REPLACES_ALL_THE_SAME = (
    "s3.conditional_put is on, and bucket {} does not refuse to replace an object, or gives no metadata back: set it to auto"
)


def _proof_object(bucket: str, prefix: str) -> Object:
    return Object(bucket, prefix + PROOF_KEY, b"", 0, "application/octet-stream", PROOF, "proof")


def _has_size(target: Object, sight: Sight) -> bool:
    """What is compressed as it is sent may have another size than before, by another version of the compressor."""
    return sight.size == target.size or not isinstance(target.source, Path | bytes)


def _must_be_own(sight: Sight, target: Object) -> None:
    """A key is a stranger's only if the store itself says so: a proxy that says 200 to every HEAD has no objects."""
    if not sight.is_own:
        raise Transient(_not_a_store(f"looking at {target.key}"))


def _not_a_store(doing: str) -> str:
    return f"{doing}: the answer has no field that S3 gives, so that something else has given it: a proxy, or another server"
