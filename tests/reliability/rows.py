"""All rows of the crash matrix, in the order of the table."""

from __future__ import annotations

from reliability import kill, store
from reliability.row import Row

ROWS: tuple[Row, ...] = (*kill.ROWS, *store.ROWS)
