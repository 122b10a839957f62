"""The S3 servers that a test runs on, one after the other: the real ones and the strict stand-in."""

from __future__ import annotations

import os

import pytest

# Tests that need a server which a newcomer need not build; `scripts/test --all` runs them.
MARK = "all_servers"
WANTED = os.environ.get("GATEWAY_TEST_ALL", "") == "1"

VERSITYGW = pytest.param("versitygw", marks=pytest.mark.all_servers)

on_every_server = pytest.mark.parametrize("buckets", ["minio", VERSITYGW, "strict"], indirect=True)
