"""A fake store that writes down what came and when, so that each moment of it can be brought back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from aiohttp import web

from testkit.servers.fake_s3 import FakeS3, Kept, Request, Upload


@dataclass(frozen=True)
class Stored:
    """One request that changed the store.

    Attributes:
        begun_ns: when its head had come.
        done_ns: when it was done, just before the answer.
        objects, uploads: what it put in place; an upload of None is over.
    """

    begun_ns: int
    done_ns: int
    objects: dict[tuple[str, str], Kept]
    uploads: dict[str, Upload | None]


class RecordingStore(FakeS3):
    """A store that writes down when each object came."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Stored] = []

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """See `FakeS3.handle`."""
        http["begun_ns"] = time.time_ns()
        return await super().handle(http)

    def _done(self, http: web.Request, request: Request, body: bytes) -> web.Response:
        objects, uploads = dict(self.objects), copied(self.uploads)
        answer = super()._done(http, request, body)
        new = {key: kept for key, kept in self.objects.items() if objects.get(key) is not kept}
        changed: dict[str, Upload | None] = {
            name: upload for name, upload in copied(self.uploads).items() if uploads.get(name) != upload
        }
        changed |= dict.fromkeys(uploads.keys() - self.uploads.keys())
        if new or changed:
            self.stored.append(Stored(http["begun_ns"], time.time_ns(), new, changed))
        return answer


def copied(uploads: dict[str, Upload]) -> dict[str, Upload]:
    """Uploads that further parts leave alone."""
    return {name: Upload(upload.bucket, upload.key, upload.headers, dict(upload.parts)) for name, upload in uploads.items()}


@dataclass
class StoreState:
    """What a store held at a moment."""

    objects: dict[tuple[str, str], Kept] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)

    def after(self, stored: Stored) -> StoreState:
        """What it holds when one more request is done."""
        uploads = {**self.uploads, **stored.uploads}
        return StoreState(
            {**self.objects, **stored.objects}, {name: upload for name, upload in uploads.items() if upload is not None}
        )


def fill(store: FakeS3, state: StoreState) -> None:
    """Have a store hold this, and nothing else."""
    store.objects = dict(state.objects)
    store.uploads = copied(state.uploads)
    store.requests.clear()
