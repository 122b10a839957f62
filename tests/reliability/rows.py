"""All rows of the crash matrix, in the order of the table."""

from __future__ import annotations

from reliability.disk import rows as disk_faults
from reliability.hostile import rows as hostile
from reliability.kill import rows as kill
from reliability.names import rows as naming
from reliability.power import rows as power
from reliability.row import Row
from reliability.store import rows as store
from reliability.workers import rows as workers

ROWS: tuple[Row, ...] = (
    *kill.ROWS,
    *power.ROWS,
    *disk_faults.ROWS,
    *store.ROWS,
    *naming.ROWS,
    *hostile.ROWS,
    *workers.ROWS,
)
