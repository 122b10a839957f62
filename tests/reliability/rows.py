"""All rows of the crash matrix, in the order of the table."""

from __future__ import annotations

from reliability.row import Row

ROWS: tuple[Row, ...] = ()
