"""A failure that lasts is told, and is no flood."""

from __future__ import annotations

from gateway.telemetry.repeated_failure import Defect, Repeated
from testkit.log import Pipe


def test_repeated_failure() -> None:
    """A failure that repeats is told when it begins, as a count while it lasts, and when it ends."""
    pipe, now = Pipe(), [100.0]
    repeated = Repeated(pipe.log, "delivery failed", "delivery recovered", interval_s=60, clock=lambda: now[0])
    repeated.ended(key="quiet")
    for now[0] in (100.0, 101.0, 159.0, 161.0, 170.0, 222.0):
        repeated.failed(key="k")
    now[0] = 230.5
    repeated.ended(key="k")
    repeated.ended(key="quiet")
    repeated.failed(key="anew")
    assert [line.decode()[25:] for line in pipe.end()] == [
        "warning delivery failed        key=k",
        "warning delivery failed        key=k count=4 duration_s=61.0",
        "warning delivery failed        key=k count=6 duration_s=122.0",
        "info    delivery recovered     key=k count=6 duration_s=130.5",
        "warning delivery failed        key=anew",
    ]


def test_a_failure_of_another_kind() -> None:
    """A failure that becomes another one is told at once, and then as seldom as the first; two that alternate are no flood."""
    pipe, now = Pipe(), [100.0]
    repeated = Repeated(pipe.log, "delivery failed", "delivery recovered", interval_s=60, clock=lambda: now[0])
    for now[0], kind in ((100.0, "transient"), (101.0, "refused"), (102.0, "transient"), (103.0, "refused"), (165.0, "refused")):
        repeated.failed(kind=kind)
    repeated.ended()
    repeated.failed(kind="refused")
    assert [line.decode()[25:] for line in pipe.end()] == [
        "warning delivery failed        kind=transient",
        "warning delivery failed        kind=refused count=2 duration_s=1.0",
        "warning delivery failed        kind=refused count=5 duration_s=65.0",
        "info    delivery recovered     count=5 duration_s=65.0",
        "warning delivery failed        kind=refused",
    ]


def test_a_defect_is_logged_where_it_begins() -> None:
    """Attempts that meet the same defect add nothing to the log, until one has succeeded."""
    pipe = Pipe()
    defect = Defect(pipe.log, "delivery of usage")
    for _ in range(3):
        defect.met(ValueError("first"))
    defect.ended()
    defect.ended()
    defect.met(ValueError("again"))
    lines = [line.decode() for line in pipe.end()]
    assert [" defect " in line and "delivery of usage" in line for line in lines] == [True, True]
    assert ["first" in lines[0], "again" in lines[1]] == [True, True]
