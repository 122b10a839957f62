"""The figures of a soak, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from reliability.soak.plan import Deed
from reliability.soak.report import Report
from reliability.soak.run import ALLOCATOR
from reliability.soak.samples import FIGURES, MIB, thirds
from reliability.table import table_of


def render(report: Report, commit: str) -> str:
    """What was done, what was sent, and what became of it."""
    held = "It has held." if not report.faults else f"**It has not held**: {len(report.faults)} faults."
    parts = [
        f"Commit {commit}, seed {report.seed}, {report.seconds / 60:.1f} minutes.\n{held}",
        table_of(("done", "times"), _deeds(report)),
        table_of(("request", "sent", "answered with"), _requests(report.sent)),
        table_of(("lines and files", ""), _account(report)),
    ]
    if len(report.calm) >= len(FIGURES):
        head = (f"at {len(report.calm)} quiet points without a kill", "first third", "second third", "last third", "highest")
        parts.append(table_of(head, _flat(report)))
        parts.append("The allocator was set to give back what is free: " + ", ".join(map("=".join, ALLOCATOR.items())) + ".")
    parts += [f"- {fault}" for fault in report.faults]
    return "\n\n".join(parts) + "\n"


def _deeds(report: Report) -> Iterable[Sequence[str]]:
    for deed in (Deed.KILL, Deed.KILL_IN_RECOVERY, Deed.STOP, Deed.QUIET):
        yield deed.value, f"{report.deeds[deed]:,}"
    for kind, count in sorted(report.outages.items()):
        yield f"outage: {kind}", f"{count:,}"
    yield "all outages together", f"{report.outages.total():,}, {report.outage_s:.0f} s"


def _requests(sent: Counter[tuple[str, int]]) -> Iterable[Sequence[str]]:
    for kind in sorted({kind for kind, _ in sent}):
        statuses = sorted((status, count) for (of, status), count in sent.items() if of == kind)
        told = ", ".join(f"{status or 'nothing'}: {count:,}" for status, count in statuses)
        yield kind, f"{sum(count for _, count in statuses):,}", told
    yield "all", f"{sent.total():,}", ""


def _account(report: Report) -> Iterable[Sequence[str]]:
    account = report.account
    yield "acknowledged", f"{account.acknowledged:,}"
    yield "delivered", f"{account.delivered:,}"
    yield "lost", f"{account.lost:,}"
    yield "doubled", f"{account.doubled:,}"
    yield "there though refused", f"{account.there_though_refused:,}"
    yield "never sent", f"{account.never_sent:,}"


def _flat(report: Report) -> Iterable[Sequence[str]]:
    for figure in FIGURES:
        shown = [figure.show(value) for value in thirds(report.calm, figure)]
        yield figure.name, *shown, figure.show(max(figure.of(sample) for sample in report.calm))
    yield "peak of resident memory, in all lives", "", "", "", f"{report.peak / MIB:.1f} MiB"
    yield "files in the spool", "0", "0", "0", f"{report.most_files:,} under load"
