"""The page of `web/` in Debian's Chromium, without a window, driven by Playwright.

The page's Content-Security-Policy also forbids Playwright to evaluate strings, hence the functions.
"""

import json
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import RELEASE

from asterisk import web

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
END = re.compile(r"Ready\.|Nothing new\.")
PATIENCE_MS = 60_000  # a busy machine takes long to load the model
NOTES = [
    "A cat sat on the mat.",
    "A kitten sat on the rug.",
    "The boiler in the cellar makes no hot water.",
    "The heating in the basement does not warm the water.",
    "Stock markets fell sharply today.",
    "Share prices dropped steeply on Monday.",
    "Bake the bread for forty minutes.",
]


@contextmanager
def serving(headers=web.HEADERS):
    """Serve the page; yield its address."""
    if not (web.WEB / "node_modules").exists():
        pytest.skip("the page's libraries are not installed: no npm on this machine")
    with web.serve(RELEASE, 0, headers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def listed(files):
    """Return what `files.js` says of the files of the page."""
    return json.loads(files["files.js"].decode().partition(" = ")[2].partition(";\n")[0])


def wait_for(page, selector, text):
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)


def open_page(context, url, status="Ready."):
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    wait_for(page, "#status", status)
    return page


def clear_status(page):
    page.evaluate("() => { document.getElementById('status').textContent = ''; }")


def paste(page, texts):
    """Add texts, and wait until they are embedded and grouped."""
    clear_status(page)
    page.fill("#pasted", "\n".join(texts))
    page.click("#add")
    wait_for(page, "#status", "Ready.")


def add_files(page, directory, files):
    """Write files, given by name and content, and add them; wait until what can be read is grouped."""
    paths = []
    for name, content in files.items():
        path = Path(directory, name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(path)
    clear_status(page)
    page.set_input_files("#files", paths)
    wait_for(page, "#status", END)


def search(page, query):
    """Type a query; return the texts found, the best first."""
    page.fill("#query", "")
    page.fill("#query", query)
    wait_for(page, "#found", "nearest")
    return page.locator("#results li p:first-child").all_inner_texts()


def stored(page):
    """Return the passages in the browser's storage, vectors as lists."""
    return page.evaluate(
        """async () => {
            const { allPassages } = await import("./store.js");
            const passages = await allPassages();
            return passages.map((passage) => ({ ...passage, vector: passage.vector && [...passage.vector] }));
        }"""
    )
