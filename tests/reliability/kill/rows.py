"""Rows that kill the gateway before and after each of its calls that change the disk or tell somebody something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from gateway.spool.directories import FORMAT_VERSION
from reliability.calls import START
from reliability.kill.attempt import Life, Try, attempt, recorded
from reliability.kill.full_spool import FullSpool
from reliability.kill.leavings import leave
from reliability.kill.traced import Kill
from reliability.kill.upgrade import Upgrade
from reliability.row import Outcome, Row, Site
from reliability.scenario import Scenario

GROUP = "Kill at every step"
# Two cores; more gateways at a time would only wait for each other.
PARALLEL = 2
# How often a call is gone for that does not come in every run, because the threads take turns as they like.
ATTEMPTS = 3
# No row makes more tries than this, which is four minutes' worth.
MOST = 120
PAIRS = 40


def first_and_last(kills: Sequence[Kill]) -> list[Kill]:
    """Of each kind of call, whichever report stream it is for, the first and the last occurrence, in the order of the run."""
    kept = {*{_kind(kill): kill for kill in reversed(kills)}.values(), *{_kind(kill): kill for kill in kills}.values()}
    return [kill for kill in kills if kill in kept]


def _kind(kill: Kill) -> tuple[object, ...]:
    assert kill.step is not None  # a recorded one
    return kill.step.transition, kill.step.text.replace("error", "usage"), kill.after


def spread(kills: Sequence[Kill], most: int) -> list[Kill]:
    """At most so many of them, evenly spread."""
    return [kills[number * len(kills) // min(most, len(kills))] for number in range(min(most, len(kills)))]


def _one_earlier(kill: Kill) -> Kill:
    """Instead of a call that did not come: the one of its kind before it."""
    if kill.step is None:
        return replace(kill, number=max(1, kill.number // 2))
    return replace(kill, step=replace(kill.step, occurrence=max(1, kill.step.occurrence - 1)))


def outcome_of(tries: Iterable[Try]) -> Outcome:
    """The tries counted; one that did not come to its call tells nothing, unless something is wrong with it."""
    outcome = Outcome()
    missed = []
    for one in tries:
        if one.was_killed or not one.is_right:
            outcome.add(one.account, one.where)
        else:
            missed.append(one.where)
        for fault in one.faults:
            outcome.blame(f"{one.where}: {fault}")
    if missed:
        outcome.notes.append(f"{len(missed)} calls did not come again, nor the ones before them: {'; '.join(missed)}")
    if not outcome.tried:
        outcome.blame("the gateway came to none of the calls")
    if unnoted := sum(one.unnoted for one in tries):
        outcome.notes.append(f"{unnoted} uploads in parts were begun without their id having reached the disk")
    return outcome


def _in_parallel(kills: Sequence[Sequence[Kill]], site: Site, life: Life) -> Outcome:
    """One try for each set of kills, in which the first comes first."""

    def one(numbered: tuple[int, Sequence[Kill]]) -> Try:
        number, at = numbered
        for again in range(ATTEMPTS):
            made = attempt(site, f"{number}-{again}", at, life)
            if made.was_killed or not made.is_right:
                break
            at = [_one_earlier(kill) for kill in at]
        return made

    with ThreadPoolExecutor(PARALLEL) as runs:
        return outcome_of(list(runs.map(one, enumerate(kills))))


def _each(site: Site, life: Life, is_wanted: Callable[[Kill], bool]) -> Outcome:
    seen = [kill for kill in recorded(site, life) if is_wanted(kill)]
    chosen = spread(first_and_last(seen), MOST)
    outcome = _in_parallel([[kill] for kill in site.pick(chosen)], site, life)
    outcome.notes.append(f"one run makes {len(seen) // 2} such calls; a whole row kills {len(chosen)} times, before or after one")
    return outcome


def _row(transition: str, does: str) -> Row:
    def run(site: Site) -> Outcome:
        return _each(site, Scenario(), lambda kill: kill.step is not None and kill.step.transition == transition)

    return Row(f"kill-{transition.replace(' ', '-')}", GROUP, f"SIGKILL before and after each call that {does}", run)


def _seal_unpacked(site: Site) -> Outcome:
    """On a full disk; the claims that are tried there, and the removal of the batch that they leave, are part of it."""
    wanted = ("claim", "seal", "seal unpacked", "remove sources")
    return _each(site, FullSpool(), lambda kill: kill.step is not None and kill.step.transition in wanted)


def _recover(site: Site) -> Outcome:
    return _each(site, leave(site), lambda _: True)


def _upgrade(site: Site) -> Outcome:
    outcome = Outcome()
    formats = range(1, FORMAT_VERSION)
    for number in formats:
        (folder := site.folder / str(number)).mkdir()
        share = replace(site, folder=folder, share=site.share / len(formats))
        outcome.join(_each(share, Upgrade(number), lambda _: True))
    return outcome


def _lost_format(site: Site) -> Outcome:
    return _each(site, Upgrade(2, is_said=False), lambda _: True)


def _second(number: int, of: int, steps: int) -> Kill:
    return Kill(after=number % 2 == 0, number=1 + number * 7 % of * steps // of)


def _recover_twice(site: Site) -> Outcome:
    leavings = leave(site)
    kills = recorded(site, leavings)
    chosen = spread(kills, PAIRS)
    # Each with another second one, so that early ones meet late ones.
    pairs = [(kill, _second(number, len(chosen), len(kills) // 2)) for number, kill in enumerate(chosen)]
    return _in_parallel(site.pick(pairs), site, leavings)


ROWS: tuple[Row, ...] = (
    _row(START, "makes the folders at the first start"),
    _row("receive", "writes a draft or a segment"),
    _row("commit", "makes it durable, or answers"),
    _row("cut", "ends a segment"),
    _row("claim", "moves files into a batch"),
    _row("aggregate", "writes an archive"),
    _row("seal", "puts an archive in place"),
    Row(
        "kill-seal-unpacked",
        GROUP,
        "SIGKILL before and after each call that seals files as they are on a full disk",
        _seal_unpacked,
    ),
    _row("remove sources", "removes the sources of a sealed batch"),
    _row("deliver", "notes an upload, renumbers, or sends to the store"),
    _row("retire", "removes what was delivered"),
    Row("kill-recover", GROUP, "SIGKILL before and after each call of a start that finds every state on disk", _recover),
    Row("kill-recover-twice", GROUP, "the same, and SIGKILL again in the start that follows", _recover_twice),
    Row("kill-upgrade", GROUP, "SIGKILL before and after each call of a start that finds a spool of an earlier format", _upgrade),
    Row(
        "kill-lost-format", GROUP, "SIGKILL before and after each call of a start that finds a spool without FORMAT", _lost_format
    ),
)
