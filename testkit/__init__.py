"""What tests, benchmarks, the crash matrix and the soak share: starters of gateways and servers, senders, ledgers."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
# Where a Python finds this package, and the packages of tests that run by themselves.
PYTHON_PATH = os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests")))
