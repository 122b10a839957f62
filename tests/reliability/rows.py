"""All rows of the crash matrix, in the order of the table."""

from __future__ import annotations

from reliability import disk_faults, hostile, kill, naming, power, store
from reliability.row import Row

ROWS: tuple[Row, ...] = (*kill.ROWS, *power.ROWS, *disk_faults.ROWS, *store.ROWS, *naming.ROWS, *hostile.ROWS)
