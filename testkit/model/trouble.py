"""What goes wrong between the steps of the model, and in them: crashes, a disk that refuses, clocks that are set."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from gateway.core import clock
from testkit.model.fate import REFUSALS, Loss

MINUTE_NS = 60 * clock.NANOSECONDS


@dataclass(frozen=True)
class Restart:
    """What comes between a process and the next one.

    Attributes:
        loss: what the end of the old one does to what was not synced.
        step_ns: how the clock of the machine moves meanwhile.
        crashes: at which change of the disk the first starts die; one that needs fewer is killed when it has recovered.
    """

    loss: Loss = Loss.NOTHING
    step_ns: int = 0
    crashes: tuple[int, ...] = ()


CLOCK_STEPS = st.sampled_from([1, MINUTE_NS, MINUTE_NS, clock.HOUR_NS, -MINUTE_NS, -clock.HOUR_NS])
RESTARTS = st.builds(
    Restart,
    loss=st.sampled_from(Loss),
    step_ns=CLOCK_STEPS,
    crashes=st.lists(st.integers(0, 30), max_size=2).map(tuple),
)


@dataclass(frozen=True)
class Trouble:
    """What the disk has in store for one of the next changes.

    Attributes:
        calls: how many changes are made before.
        error: with which the disk refuses it; 0 where the process is killed.
        times: how many changes are refused, from that one on.
        torn: whether a kill in a write leaves half of it.
        restart: what comes after a kill.
    """

    calls: int
    error: int = 0
    times: int = 1
    torn: bool = False
    restart: Restart = Restart()


# The first calls are those of a round of the journal; a batch makes some dozen.
CALLS = st.integers(0, 6) | st.integers(0, 25)
KILLS = st.builds(Trouble, calls=CALLS, torn=st.booleans(), restart=RESTARTS)
REFUSED = st.builds(Trouble, calls=CALLS, error=st.sampled_from(REFUSALS), times=st.integers(1, 4))
AHEAD = st.none() | st.none() | KILLS | REFUSED
