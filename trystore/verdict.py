"""Whether the gateway can keep its promise with a store, and which settings it needs for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trystore.finding import CHECKSUMS, Finding


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        why_not: the sentence that says why the promise cannot be kept; empty if it can be.
        settings: the keys of section `s3` that the gateway needs, with their values.
        notes: sentences about these settings.
    """

    why_not: str
    settings: dict[str, str]
    notes: tuple[str, ...] = ()


def judge(findings: Iterable[Finding]) -> Verdict:
    """Judge by what was found."""
    holds = {finding.name: finding.holds for finding in findings}
    usable = [setting for setting in CHECKSUMS if holds[f"put {setting}"] and holds[f"parts {setting}"]]
    if not usable:
        return Verdict("With neither value of s3.checksums does the store take and give back both whole objects and parts.", {})
    if not (holds["checksum back"] or holds["etag"] or holds["head"]):
        return Verdict(
            "That an object was stored cannot be proved: its put is answered with neither its checksum nor its MD5, "
            "and HEAD does not show its metadata and its size.",
            {},
        )
    conditional, notes = _condition(holds)
    return Verdict("", {"checksums": usable[0], "conditional_put": conditional}, notes)


def _condition(holds: dict[str, bool]) -> tuple[str, tuple[str, ...]]:
    needed = {
        "condition put": "PutObject to a taken key is not refused",
        "condition parts": "CompleteMultipartUpload to a taken key is not refused",
        "condition race": "of several puts at the same time more than one is taken",
        "metadata": "metadata does not come back, so that an object cannot be known again",
        "head": "HEAD does not show metadata and size, so that an object cannot be known again",
    }
    missing = [text for name, text in needed.items() if not holds[name]]
    if not missing:
        return "auto", ()
    return "off", (f"Every key gets the id of its batch or specimen, since {'; '.join(missing)}.",)
