"""One aggregation, a program of its own, so that its memory is seen alone.

    python -m benchmarks.aggregating ARCHIVE LEVEL SOURCE...

It prints one line of JSON: seconds, resident memory before (MiB), the peak above it (MiB), and how many lines it saw.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.memory import forget_peak, memory_of
from gateway.aggregate import aggregate


def main(archive: str, level: str, *sources: str) -> None:
    """Aggregate, and print what it took."""
    forget_peak(os.getpid())
    idle = memory_of(os.getpid())
    begun = time.perf_counter()
    summary = aggregate([Path(source) for source in sources], Path(archive), int(level))
    seconds = time.perf_counter() - begun
    above_mib = memory_of(os.getpid()).peak_mib - idle.now_mib
    print(json.dumps({"seconds": seconds, "idle_mib": idle.now_mib, "above_mib": above_mib, "lines": summary.lines}))


if __name__ == "__main__":
    main(*sys.argv[1:])
