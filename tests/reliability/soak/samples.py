"""What a gateway takes of the machine when it has nothing to do, and whether that stays the same."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from gateway.spool.directories import OWN_FILES
from testkit.deadlines import until
from testkit.gateway_process import Gateway

MIB = 1 << 20
# In each third of the calm phase.
_LEAST_SAMPLES = 2
_TORN = re.compile(r"quarantine/.*\.jsonl\.open\.rest")


@dataclass(frozen=True)
class Sample:
    """What the processes of a gateway take at one instant.

    Attributes:
        at_s: since the soak began.
        memory: bytes that are resident.
        peak: bytes that were resident at most since the start.
        descriptors: how many of each kind: `socket`, `pipe`, `file`, or the name of an anonymous inode.
        files: in the spool, drafts among them, without what a person has to look at.
        drafts: of these, under `tmp/`.
    """

    at_s: float
    memory: int
    peak: int
    threads: int
    descriptors: Mapping[str, int]
    files: int
    drafts: int

    @property
    def open_descriptors(self) -> int:
        """Of all kinds."""
        return sum(self.descriptors.values())


def spooled(gateway: Gateway) -> list[str]:
    """What is in the spool, but for the torn ends of segments that a killed gateway has left for a person to look at.

    Folders may go while they are looked at, which `Gateway.left` does not like everywhere.
    """
    walk = os.walk(gateway.cache)
    found = (os.path.relpath(os.path.join(folder, name), gateway.cache) for folder, _, names in walk for name in names)
    return sorted(name for name in found if name not in OWN_FILES and not _TORN.fullmatch(name))


def take(gateway: Gateway, at_s: float) -> Sample:
    """Take a sample once nothing changes any more, or after some seconds of change."""
    last: list[Sample] = []

    def is_still() -> bool:
        now = _look(gateway, at_s)
        same = bool(last) and (now.threads, now.descriptors, now.files) == (
            last[-1].threads,
            last[-1].descriptors,
            last[-1].files,
        )
        last[:] = [now]
        return same and not now.files

    with suppress(AssertionError):
        until(is_still, "the gateway to be still", timeout_s=3)
    return last[-1]


def _look(gateway: Gateway, at_s: float) -> Sample:
    pids = [process.pid for process in gateway._processes()]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    files = spooled(gateway)
    return Sample(
        at_s=at_s,
        memory=sum(_figure(status, "VmRSS") for status in statuses) * 1024,
        peak=sum(_figure(status, "VmHWM") for status in statuses) * 1024,
        threads=sum(_figure(status, "Threads") for status in statuses),
        descriptors=dict(sum((_descriptors(pid) for pid in pids), Counter())),
        files=len(files),
        drafts=sum(name.startswith("tmp/") for name in files),
    )


def _figure(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    assert found is not None, f"the kernel tells no {name}"
    return int(found[1])


def _descriptors(pid: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed between the two looks.
        with suppress(OSError):
            kinds[kind_of(os.readlink(entry))] += 1
    return kinds


def kind_of(target: str) -> str:
    """The kind of an open descriptor, by what its link in /proc says."""
    kind, _, rest = target.partition(":")
    if target.startswith("/"):
        return "file"
    return rest.strip("[]") if kind == "anon_inode" else kind


@dataclass(frozen=True)
class Figure:
    """One of the things that have to stay the same.

    Attributes:
        name: for a person.
        of: reads it from a sample.
        allowance: how much larger the median of the last third of the samples may be than that of the second third.
        show: writes a value for a person.
    """

    name: str
    of: Callable[[Sample], float]
    allowance: float
    show: Callable[[float], str] = "{:g}".format


def _mebibytes(value: float) -> str:
    return f"{value / MIB:.1f} MiB"


# The first third is left out: it is the time in which pools of threads, connections and memory come to their size.
FIGURES = (
    Figure("resident memory", lambda sample: sample.memory, 4 * MIB, _mebibytes),
    Figure("open descriptors", lambda sample: sample.open_descriptors, 1),
    Figure("threads", lambda sample: sample.threads, 1),
)


def thirds(samples: Sequence[Sample], figure: Figure) -> tuple[float, float, float]:
    """The median of each third of the samples."""
    values = [figure.of(sample) for sample in samples]
    bounds = [round(number * len(values) / 3) for number in range(4)]
    first, second, last = (median(values[begin:end]) for begin, end in pairwise(bounds))
    return first, second, last


def growths(samples: Sequence[Sample]) -> list[str]:
    """What has not stayed the same, a line each; nothing can be said of too few samples."""
    if len(samples) < 3 * _LEAST_SAMPLES:
        return [f"{len(samples)} quiet points in the calm phase are too few to tell whether anything grows"]
    found = []
    for figure in FIGURES:
        _, second, last = thirds(samples, figure)
        if last - second > figure.allowance:
            shown = f"{figure.show(second)} to {figure.show(last)}, and {figure.show(figure.allowance)} are allowed"
            found.append(
                f"{figure.name} grew from the second to the last third of the calm phase: {shown}{_by_kind(figure, samples)}"
            )
    return found


def _by_kind(figure: Figure, samples: Sequence[Sample]) -> str:
    if figure.name != "open descriptors":
        return ""
    return f"; by kind {dict(samples[len(samples) // 3].descriptors)} and then {dict(samples[-1].descriptors)}"
