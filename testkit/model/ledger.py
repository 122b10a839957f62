"""What was sent and how it was answered, and where each of it is found: in the spool, in the store, once."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from gateway.core.streams import Form, Stream
from gateway.spool import names
from gateway.spool.sidecar import Sidecar
from testkit.model.store import Kept, ModelStore

# What stands beside a file whose user or uri does not fit its metadata.
COMPANION = ".meta.json"
_REPORT_IN_ENVELOPE = b'"report":'


class Answer(Enum):
    """What the sender knows, and with it how often a thing may be found."""

    NONE = "at most once"
    ACKNOWLEDGED = "exactly once"
    REFUSED = "never"

    def allows(self, count: int) -> bool:
        """Whether a thing that was answered so may be found so often."""
        return count in {Answer.NONE: (0, 1), Answer.ACKNOWLEDGED: (1,), Answer.REFUSED: (0,)}[self]


@dataclass
class Ledger:
    """Everything that was ever sent, each report as the line that is stored of it; no two are alike.

    Attributes:
        answers: by the content.
        hours: the hour in which it was received, or would have been.
    """

    answers: dict[bytes, Answer] = field(default_factory=dict)
    hours: dict[bytes, str] = field(default_factory=dict)

    def sent(self, content: bytes, hour: str) -> None:
        """Note a line or a file before it is sent."""
        assert content not in self.answers
        self.answers[content], self.hours[content] = Answer.NONE, hour

    def answered(self, contents: Iterable[bytes], answer: Answer) -> None:
        """Note how they were answered."""
        self.answers.update(dict.fromkeys(contents, answer))

    def wrongs(self, found: Counter[bytes]) -> list[str]:
        """Tell what is found too often, not often enough, or was never sent."""
        alien = [f"never sent: {content!r}" for content in found if content not in self.answers]
        return alien + [
            f"found {found[content]} times, {answer.value} is right: {content!r}"
            for content, answer in self.answers.items()
            if not answer.allows(found[content])
        ]

    def misplaced(self, streams: Iterable[Stream], store: ModelStore) -> list[str]:
        """Tell which objects have a key of another time than that at which what they hold was received."""
        wrong = []
        forms = {stream.bucket: stream.form for stream in streams}
        for (bucket, key), kept in own(store).items():
            for content in contents_of(kept, forms[bucket], key):
                hour = self.hours.get(content, "")
                day = f"{hour[:4]}/{hour[4:6]}/{hour[6:8]}/"
                place = f"{day}{hour[8:]}/{hour}." if forms[bucket].has_segments else day
                if place not in key:
                    wrong.append(f"{key} holds what was received in {hour}: {content!r}")
        return wrong


# --- where things are --------------------------------------------------------------------------------------------


def own(store: ModelStore) -> dict[tuple[str, str], Kept]:
    """Give the objects that the gateway has put."""
    return {place: kept for place, kept in store.objects.items() if not kept.is_strange}


def contents_of(kept: Kept, form: Form, key: str) -> list[bytes]:
    """Give the lines or the file in an object; nothing for what only stands beside a file."""
    if form.has_segments:
        return [bare(line) for line in kept.lines()]
    return [] if key.endswith(COMPANION) else [kept.data]


def bare(line: bytes) -> bytes:
    """Give the report in a line, which may be in its envelope."""
    if not line.startswith(b'{"user":'):
        return line
    return line[line.index(_REPORT_IN_ENVELOPE) + len(_REPORT_IN_ENVELOPE) : -1]


def everything(root: Path, streams: Iterable[Stream], store: ModelStore) -> Counter[bytes]:
    """Count each line and each file that is stored, or that a recovery and a drain would bring to the store."""
    found: Counter[bytes] = Counter()
    forms = {stream.bucket: stream.form for stream in streams}
    for (bucket, key), kept in own(store).items():
        found.update(contents_of(kept, forms[bucket], key))
    for stream in streams:
        stored = {
            kept.metadata[identity]
            for (bucket, key), kept in own(store).items()
            for identity in ("batch", "id")
            if bucket == stream.bucket and identity in kept.metadata and not key.endswith(COMPANION)
        }
        found.update(_spooled(root / stream.name, stream, stored))
    return found


def _spooled(folder: Path, stream: Stream, stored: set[str]) -> Iterator[bytes]:
    """Give what waits, but for what the store has already under its id."""
    if stream.form.has_sidecar:
        for body in folder.glob("*.body"):
            sidecar = body.with_suffix(".meta")
            # Without one nobody can name it, and it would be quarantined.
            if sidecar.exists() and Sidecar.from_json(sidecar.read_bytes()).id not in stored:
                yield body.read_bytes()
        return
    for path in [*folder.glob("*.jsonl.open"), *folder.glob("*.jsonl"), *folder.glob("*.json")]:
        yield from _sound(path.read_bytes())
    sealed = {parsed[0]: path for path in (folder / "uploading").iterdir() if (parsed := names.parse_sealed(path.name))}
    for batch, path in sealed.items():
        if batch.unique not in stored:
            data = path.read_bytes()
            yield from _sound(gzip.decompress(data) if names.is_packed(path.name) else data)
    for claimed in (folder / "aggregation").iterdir():
        if names.parse_batch(claimed.name) not in sealed:
            for path in claimed.iterdir():
                yield from _sound(path.read_bytes())


def _sound(data: bytes) -> Iterator[bytes]:
    """Give the lines up to the first that is torn: only the last segment of a dead process has such a one."""
    *lines, _ = data.split(b"\n")
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            return
        yield bare(line)


def instants(root: Path, streams: Iterable[Stream]) -> list[int]:
    """Give the instant in the name of each thing that waits or is claimed, one for a file and its sidecar."""
    paths = [path for stream in streams for path in (root / stream.name).rglob("*") if path.is_file()]
    spooled = [names.parse_spool_name(path.name) for path in paths]
    return sorted(name.order for name in spooled if name is not None and name.kind != names.SIDECAR)
