"""Rows of power cuts: every state that a disk may be left in, tried with the gateway that finds it."""

from __future__ import annotations

from collections.abc import Callable

from reliability.power.bench import attempt_all
from reliability.power.cuts import Cut, Moment, Recording, chosen, cuts, moments, record, requests
from reliability.power.disk_states import Do, NameChange
from reliability.row import Outcome, Row, Site

# So many states a row are tried at most, and so many recordings made to find them.
MOST_TRIES = 120
MOST_RECORDINGS = 3


def _in_step(transition: str) -> Callable[[Site], Outcome]:
    def run(site: Site) -> Outcome:
        wanted = site.of(MOST_TRIES)
        candidates: list[Cut] = []
        for number in range(MOST_RECORDINGS):
            recording = record(site.folder / f"recorded-{number}", requests(number), number)
            candidates += [cut for cut in cuts(recording) if cut.transition == transition]
            if len(candidates) >= wanted:
                break
        outcome = Outcome()
        outcome.notes.append(f"{len(candidates)} states found in {number + 1} recordings")
        attempt_all(chosen(candidates, wanted), site.folder, outcome)
        return outcome

    return run


def _in_recovery(site: Site) -> Outcome:
    """Cuts in the start of a gateway: of an empty disk, and of what a kill in each transition has left."""
    first = record(site.folder / "recorded", requests(0), 0)
    candidates = [cut for cut in cuts(first, whole=_in_start) if cut.transition == "start"]
    fullest: dict[str, Moment] = {}
    for moment in moments(first):
        if moment.transition not in fullest or _work_left(moment) >= _work_left(fullest[moment.transition]):
            fullest[moment.transition] = moment
    # The first start of all, then those kills that have left most unsynced.
    kills = sorted(fullest.values(), key=lambda moment: (_in_start(moment), _work_left(moment)), reverse=True)
    kills = kills[: site.of(len(kills))]
    for run, moment in enumerate(kills, 1):
        begin = Recording(first.requests.copy(), disk=moment.disk, store=moment.stores[0], acknowledged=moment.acknowledged)
        # The whole life of that gateway counts: what its start left undone would show only later.
        candidates += cuts(record(site.folder / f"recorded-{run}", requests(run)[:6], run, begin), whole=_in_start)
    outcome = Outcome()
    outcome.notes.append(f"{len(candidates)} states found after kills in {', '.join(moment.transition for moment in kills)}")
    attempt_all(chosen(candidates, site.of(MOST_TRIES)), site.folder, outcome)
    return outcome


def _in_start(moment: Moment) -> bool:
    return moment.transition == "start"


def _work_left(moment: Moment) -> tuple[bool, int]:
    """How much a start after a kill would find that is not durable: lines in a segment, and names; a draft is erased."""
    has_lines = moment.where.startswith(Do.WRITE.value) and moment.where.endswith(".jsonl.open")
    return has_lines, sum(isinstance(change, NameChange) for change in moment.disk.pending)


_WHAT = {
    "receive": "while a body or a line is being written",
    "commit": "between the write, the sync, the rename and the 204",
    "cut": "while a segment gets its final name",
    "claim": "while files are moved into a batch",
    "aggregate": "while an archive is being written",
    "seal": "while an archive is put in place and its sources removed",
    "deliver": "while it is being sent",
    "retire": "while what was delivered is removed",
}

ROWS: tuple[Row, ...] = (
    *(Row(f"power-{name}", "Power loss", f"power cut {what}", _in_step(name)) for name, what in _WHAT.items()),
    Row("power-recover", "Power loss", "power cut in the first start, or after a start that followed a kill", _in_recovery),
)
