"""Fixtures: Chromium, and pages that fail the test on errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ARGUMENTS = ["--autoplay-policy=no-user-gesture-required"] + ["--no-sandbox"] * (os.getuid() == 0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start Playwright's own Chromium, or the one on the PATH."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    on_path = [found for name in ("chromium", "google-chrome") if (found := shutil.which(name))]
    try:
        playwright = api.sync_playwright().start()
    except Exception as error:  # Playwright raises no narrower class
        pytest.skip(f"Playwright does not start ({error}): on Debian, `apt install libatomic1`")
    own = playwright.chromium.executable_path
    paths = [*([own] if os.path.exists(own) else []), *on_path]
    if paths:
        browser = playwright.chromium.launch(executable_path=paths[0], args=ARGUMENTS)
        yield browser
        browser.close()
    playwright.stop()
    if not paths:
        pytest.skip(
            "Chromium is not installed: `playwright install chromium`, or `apt install chromium`"
        )


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a URL; errors and network requests of the page fail the test."""
    contexts, wrong = [], []

    def opened(url: str, expected: Callable[[str], bool] = lambda _: False, **options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(120_000)  # a loaded machine renders slowly
        contexts.append(context)
        page = context.new_page()

        def record(line: str) -> None:
            if not expected(line):
                wrong.append(line)

        page.on(
            "console", lambda message: message.type in ("error", "warning") and record(message.text)
        )
        page.on("pageerror", lambda error: record(str(error)))
        page.on("requestfailed", lambda request: record(f"{request.url}: {request.failure}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))
                or record(f"asked the network for {request.url}")
            ),
        )
        page.add_init_script(LISTENING)
        page.goto(url)
        page.wait_for_selector("#main:not([hidden])")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


LISTENING = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...more) {
  if (to instanceof AudioDestinationNode && this.context instanceof AudioContext) {
    const heard = this.context.createAnalyser();
    heard.fftSize = 32768;
    connect.call(this, heard);
    window.heard = () => {
      const samples = new Float32Array(heard.fftSize);
      heard.getFloatTimeDomainData(samples);
      return { samples: [...samples], rate: this.context.sampleRate };
    };
  }
  return connect.call(this, to, ...more);
};
"""
"""Defines `heard()`, which returns the last 0.7 s of audio output."""
