"""The page of `web/` in Chromium, without a window, to measure it and to take pictures of it."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asterisk.errors import InputError
from asterisk.web import serve

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PATIENCE_MS = 3_600_000


@contextmanager
def browser_context(model: Path, **options: Any) -> Iterator[tuple["BrowserContext", str]]:
    """Serve the page; yield a fresh context of Chromium, and the page's address.

    Raises:
        InputError: If there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise InputError("no chromium on this machine: apt-get install chromium, or name it in CHROMIUM")
    with serve(model, 0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Root, as in a container, has no sandbox.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        yield context, f"http://127.0.0.1:{server.server_port}/"
        browser.close()
        server.shutdown()


def add_files(page: "Page", files: list[Path]) -> None:
    """Add files; wait until they are embedded, grouped and on the map."""
    page.evaluate("() => { document.getElementById('status').textContent = ''; }")
    page.set_input_files("#files", files)
    wait_for(page, "#status", "Ready.")


def wait_for(page: "Page", selector: str, text: str) -> None:
    """Wait until an element has a text."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)
