"""Servers and Dask processes that tests start on loopback, and the command line as a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from s3fs import S3FileSystem

from helpers.paths import ROOT

BUCKET = "calibration"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module in the project's folder, and end it with the block."""
    with log.open("ab") as file:
        started = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, **env}, stdout=file, stderr=file
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def wait_for(port: int, log: Path, seconds: float = 60) -> None:
    """Return once something listens on the port."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"Nothing listens on port {port} after {seconds} s: {log.read_text()[-2000:]}")


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """Serve an S3-compatible store with one bucket; yield the environment that reaches it."""
    port, log = free_port(), folder / "moto.log"
    address = f"http://127.0.0.1:{port}"
    reach = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with process("-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), env={}, log=log):
        wait_for(port, log)
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            assert answer.status == 200
        S3FileSystem.clear_instance_cache()  # one that an earlier test made has the address of its server
        yield reach


@contextmanager
def dask_cluster(folder: Path, env: Mapping[str, str]) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Run a scheduler and two workers of one thread each; yield the address and the workers."""
    port, log = free_port(), folder / "dask.log"
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    worker = [
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--host",
        "127.0.0.1",
        "--nthreads",
        "1",
        "--no-nanny",
    ]
    with process(*scheduler, "--no-dashboard", "--no-show", env=env, log=log):
        wait_for(port, log)
        with (
            process(*worker, "--no-dashboard", env=env, log=log) as first,
            process(*worker, "--no-dashboard", env=env, log=log) as second,
        ):
            yield address, [first, second]


def start(
    arguments: list[str], env: Mapping[str, str], stderr: int = subprocess.STDOUT
) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-u", "-m", "assets.cli", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def command(arguments: list[str], env: Mapping[str, str]) -> str:
    """Run the command line in a process of its own, and return what it printed."""
    done = start(arguments, env)
    try:
        out, _ = done.communicate(timeout=400)
    finally:
        done.kill()
    assert done.returncode == 0, out
    return out
