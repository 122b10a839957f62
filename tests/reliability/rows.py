"""All rows of the crash matrix, in the order of the table."""

from __future__ import annotations

from reliability import kill, power, store
from reliability.row import Row

ROWS: tuple[Row, ...] = (*kill.ROWS, *power.ROWS, *store.ROWS)
