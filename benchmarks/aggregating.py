"""One aggregation, a program of its own, so that its memory is seen alone and it can be kept on some cores.

    python -m benchmarks.aggregating ARCHIVE LEVEL SOURCE...

It prints one line of JSON: seconds, processor seconds, the peak above the memory it had before (MiB), and how many lines it saw.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.memory import forget_peak, memory_of
from gateway.batching.aggregate import aggregate


def main(archive: str, level: str, *sources: str) -> None:
    """Aggregate, and print what it took."""
    forget_peak(os.getpid())
    idle = memory_of(os.getpid())
    begun, cpu_begun = time.perf_counter(), time.process_time()
    summary = aggregate([Path(source) for source in sources], Path(archive), int(level))
    told = {
        "seconds": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu_begun,
        "above_mib": memory_of(os.getpid()).peak_mib - idle.now_mib,
        "lines": summary.lines,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
