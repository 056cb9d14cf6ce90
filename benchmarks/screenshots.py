"""Screenshots of the asset graph, of an asset's partition and of the report, for the documentation.

    calibration-pipeline run
    python -m benchmarks.screenshots

It shows the store of the current settings in Chromium.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote

from playwright.sync_api import Browser, Page, sync_playwright

from assets.settings import load_settings
from benchmarks.interrupts import enable_interrupts

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1600, "height": 1000}
# The UI fits the graph to the window's width.
GRAPH_SIZE = {"width": 2300, "height": 2900}
WITHOUT_NAVIGATION = {"x": 541, "y": 170, "width": 1759, "height": 2550}
START_S = 120.0
STOP_S = 130.0
"""Dagster waits a minute for each of its two processes."""
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@contextmanager
def serve_ui(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve Dagster's UI on a free loopback port, and yield its address.

    Parameters
    ----------
    environment : mapping, optional
        Environment variables to add, such as DAGSTER_HOME.

    Raises
    ------
    RuntimeError
        If the UI does not answer within two minutes, with the printed text.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "assets.cli", "ui", "--port", str(port)]
    with TemporaryFile("w+") as printed:
        server = subprocess.Popen(  # noqa: S603
            command,
            env={**os.environ, **(environment or {})},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            if not _answers(f"{address}/server_info", server):
                printed.seek(0)
                raise RuntimeError(f"The UI did not start in {START_S:g} s:\n{printed.read()[-4000:]}")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(STOP_S)


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
        else:
            return True
    return False


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Debian's Chromium without a window.

    Raises
    ------
    FileNotFoundError
        If Chromium is not installed.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("Chromium is not installed: apt install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


def open_graph(page: Page, address: str) -> None:
    """Open the asset graph, expand all groups, and wait for the last asset."""
    page.goto(f"{address}/asset-groups")
    page.get_by_text("verification", exact=True).first.wait_for()
    page.keyboard.press("Alt+E")
    page.get_by_text("race_results", exact=True).first.wait_for()


def open_partition(page: Page, address: str, asset: str, partition: str) -> None:
    """Open a partition of an asset, named with source and series, and wait for its metadata."""
    page.goto(f"{address}/assets/{asset}?view=partitions&partition={quote(partition)}")
    page.get_by_text("Metadata", exact=True).first.wait_for()


def main() -> None:
    """Write the screenshots."""
    enable_interrupts()
    settings = load_settings()
    report = Path(str(settings.store_path / "calibration_report.html"))
    posterior = "/".join([*settings.key_prefix, "calibration_posterior"])
    with serve_ui() as address, open_browser() as browser:
        page = browser.new_page(viewport=SIZE)
        graph = browser.new_page(viewport=GRAPH_SIZE)
        open_graph(graph, address)
        graph.wait_for_timeout(8000)  # until the UI shows the state of every asset
        graph.screenshot(path=IMAGES / "ui_graph.png", clip=WITHOUT_NAVIGATION)
        open_partition(page, address, posterior, "intermediate|network")
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / "ui_partition.png")
        page.goto(report.as_uri())
        page.screenshot(path=IMAGES / "report.png")
    print(f"Written: {IMAGES}/ui_graph.png, ui_partition.png, report.png")


if __name__ == "__main__":
    main()
