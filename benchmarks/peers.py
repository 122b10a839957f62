"""The peers that small reports are put to: nginx with WebDAV, and the yardstick."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cores import Cores, pinned
from benchmarks.ports import free_port, wait_for_port
from benchmarks.settings import CannotRun

_NGINX = """\
{user}
worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_body_buffer_size 128k;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {directory}/files;
        location / {{ dav_methods PUT; client_max_body_size 0; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that runs: the address to put reports to, and its process, below which its workers are."""

    url: str
    pid: int


def require_nginx() -> str:
    """The program; `CannotRun` if it is not here, or without WebDAV."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is not None:
        told = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
        if "http_dav_module" in told:
            return program
    raise CannotRun("nginx with WebDAV is missing; on Debian or Ubuntu: apt-get install nginx-extras")


@contextmanager
def nginx(directory: Path, cores: Cores) -> Iterator[Running]:
    """Run nginx with a worker for each of the cores; each PUT makes a file in `directory`/files that is not synced."""
    (directory / "files").mkdir(parents=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(user=user, workers=len(cores), directory=directory, port=port), "utf-8")
    command = [require_nginx(), "-e", str(directory / "error.log"), "-p", str(directory), "-c", str(configuration)]
    process = subprocess.Popen(pinned(command, cores), stdin=subprocess.DEVNULL)
    try:
        wait_for_port(port, process)
        yield Running(f"http://127.0.0.1:{port}/", process.pid)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


@contextmanager
def yardstick(cores: Cores) -> Iterator[Running]:
    """Run the yardstick."""
    command = pinned([sys.executable, "-m", "benchmarks.yardstick"], cores)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Running(f"http://127.0.0.1:{int(process.stdout.readline())}/usage", process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
