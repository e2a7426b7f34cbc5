"""`distjob serve` as a process of its own, and a browser that looks at it."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from ends import end
from servers.plan import lacking
from until import until

TOKEN = "0123456789abcdef0123456789abcdef"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_DISTJOB = (sys.executable, "-c", "from distjob.cli import main; main()")
_SERVING = re.compile(r"serving http://[^/]+:(\d+)/")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A server that runs, and how it is asked."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.log = log
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    def link(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path: str, body: object = None, *, token: str = "", **headers: str) -> Answer:
        """GET, or POST of ``body`` as JSON."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        link = self.link()
        try:
            method = "GET" if body is None else "POST"
            link.request(method, path, None if body is None else json.dumps(body), sent)
            got = link.getresponse()
            return Answer(got.status, got.headers, got.read())
        finally:
            link.close()

    @contextmanager
    def events(self) -> Iterator[Iterator[Any]]:
        """What the stream tells, parsed; the first is the whole picture."""
        link = self.link()
        link.request("GET", "/v1/events")
        got = link.getresponse()
        assert got.headers["content-type"].startswith("text/event-stream")
        try:
            yield self._told(got)
        finally:
            link.close()

    @staticmethod
    def _told(lines: http.client.HTTPResponse) -> Iterator[Any]:
        for line in lines:
            found = json.loads(line[6:]) if line.startswith(b"data: ") else {}
            if "revision" in found:
                yield found


@contextmanager
def served(config: object, folder: Path, *options: str, tokens: bool = True) -> Iterator[Served]:
    """``config``: as a settings file would hold."""
    file = folder / "serve.json"  # JSON is YAML
    file.write_text(json.dumps(config))
    if tokens:
        (folder / "tokens").write_text(f"anna {TOKEN}  # of the day shift\n")
        (folder / "tokens").chmod(0o600)
        options += ("--tokens", str(folder / "tokens"))
    log = folder / "serve.log"
    command = [*_DISTJOB, "serve", "--config", str(file), "--port", "0", *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out)
    try:
        until(lambda: process.poll() is not None or _SERVING.search(log.read_text()))
        found = _SERVING.search(log.read_text())
        assert found, log.read_text()
        yield Served(process, int(found[1]), log)
    finally:
        end(process)


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """A Chromium without a screen."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        lacking("no Chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_script_timeout(30)
    yield chrome
    chrome.quit()


def look(browser: webdriver.Chrome, width: int, height: int, scheme: str = "light") -> None:
    """As a screen of this size, in light or dark, has it."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def picture(browser: webdriver.Chrome, name: str) -> None:
    """Saved in the folder $DISTJOB_SCREENSHOTS, if there is one: those in docs are made so."""
    if folder := os.environ.get("DISTJOB_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))
