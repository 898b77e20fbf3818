"""Without a network, and without leaks: the service worker, the headers, and Chromium's own log of its network."""

import json
import re
from urllib.parse import urlsplit

import pytest
from conftest import RELEASE
from test_reading import HOSTILE
from web_pages import NOTES, add_files, listed, open_page, paste, search, serving, stored, wait_for

pytestmark = pytest.mark.slow

FETCH_ELSEWHERE = "() => fetch('http://192.0.2.1/').then(() => 'fetched', () => 'refused')"
POLICY_OF_WORKER = """async () => {
    const response = await fetch("worker.js");
    return response.headers.get("Content-Security-Policy");
}"""


def origins_asked(log):
    """Return where pages and their workers sent requests to, by Chromium's log of its network.

    Chromium itself asks for updates and the like: such requests have no initiator.
    """
    parameters = [event.get("params", {}) for event in json.loads(log.read_text(errors="replace"))["events"]]
    requests = [(sent["url"], sent["initiator"]) for sent in parameters if {"url", "initiator"} <= sent.keys()]
    return {urlsplit(url).netloc for url, initiator in requests if initiator != "not an origin"}


def test_second_visit_without_a_network(browser):
    with browser.new_context() as context:
        with serving() as url:
            page = open_page(context, url)
            wait_for(page, "#device-offline", "works")
            downloaded = page.inner_text("#device-bytes")
            assert re.fullmatch(r"2\d\.\d MB of 2\d\.\d MB", downloaded), downloaded
            paste(page, NOTES)
            groups = page.inner_text("#grouped")
            page.close()
        context.set_offline(True)
        page = open_page(context, url)
        assert page.inner_text("#grouped") == groups
        assert page.is_visible("#canvas")
        assert page.inner_text("#device-bytes").startswith("0 MB")
        assert search(page, "pets resting")[0] in NOTES[:2]
        paste(page, ["A puppy sleeps on the sofa."])
        assert len(stored(page)) == len(NOTES) + 1


def test_nothing_leaves_the_origin(launch, site, tmp_path):
    log = tmp_path / "network.json"
    browser = launch(f"--log-net-log={log}", "--net-log-capture-mode=Everything")
    page = open_page(browser.new_context(), site)
    add_files(
        page, tmp_path, {"note.md": HOSTILE, "note.html": HOSTILE.replace("/stolen", "http://192.0.2.1/stolen")}
    )
    paste(page, NOTES)
    search(page, "pets resting")
    page.focus("#canvas-box")
    page.keyboard.press("ArrowRight")
    page.reload()
    wait_for(page, "#status", "Ready.")
    page.click("#delete")
    wait_for(page, "#status", "deleted")
    browser.close()
    assert origins_asked(log) == {urlsplit(site).netloc}
    assert "stolen" not in log.read_text(errors="replace")


def test_the_log_would_show_a_leak(launch, tmp_path):
    log = tmp_path / "network.json"
    browser = launch(f"--log-net-log={log}", "--net-log-capture-mode=Everything")
    with serving(headers={}) as url:
        page = browser.new_context().new_page()
        page.goto(f"{url}vendor/licenses.txt")  # without the policy
        page.evaluate("() => fetch('http://leak.invalid/').catch(() => {})")
        browser.close()
    assert "leak.invalid" in origins_asked(log)


def test_policy_forbids_other_origins(page):
    assert page.evaluate(FETCH_ELSEWHERE) == "refused"
    assert "default-src 'none'" in page.evaluate(POLICY_OF_WORKER)
    assert page.evaluate("() => crossOriginIsolated")


def test_host_that_sends_no_headers(browser):
    with serving(headers={}) as url, browser.new_context() as context:
        page = open_page(context, url)
        assert not page.evaluate("() => crossOriginIsolated")
        assert "threads need a page that is cross-origin isolated" in page.inner_text("#device-runtime")
        assert "default-src 'none'" in page.evaluate(POLICY_OF_WORKER), "the service worker adds it"
        assert (
            page.evaluate("() => fetch('http://192.0.2.1/').then(() => 'fetched', () => 'refused')") == "refused"
        )
        page.reload()
        wait_for(page, "#status", "Ready.")
        assert page.evaluate("() => crossOriginIsolated"), "the service worker adds these headers, too"


def test_missing_file_is_one_sentence_and_the_next_visit_fetches_the_rest(browser, monkeypatch):
    from asterisk import web

    real = web.site_files
    model = "model/onnx/model_quantized.onnx"
    with serving() as url, browser.new_context() as context:
        monkeypatch.setattr(web, "site_files", lambda path: {k: v for k, v in real(path).items() if k != model})
        page = context.new_page()
        page.goto(url)
        wait_for(page, "#error", "The model could not be loaded; load the page again.")
        assert page.inner_text("#device-offline").startswith("does not work")
        monkeypatch.undo()
        page.reload()
        wait_for(page, "#status", "Ready.")
        assert page.inner_text("#device-offline") == "works"
        received, total = re.findall(r"[\d.]+", page.inner_text("#device-bytes"))
        everything = sum(entry["bytes"] for entry in listed(real(RELEASE)).values() if entry["first"])
        assert received == total and float(total) < everything / 1e6 / 2


def test_browser_without_service_workers(browser, site):
    with browser.new_context(service_workers="block") as context:
        page = open_page(context, site)
        assert page.inner_text("#device-offline").startswith("does not work")
        assert page.inner_text("#device-bytes") == "not counted"


def test_page_without_scripts_says_so(browser, site):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(site)
        assert "needs JavaScript" in page.inner_text("body")


def test_changed_file_is_fetched_again(browser, tmp_path, monkeypatch):
    from asterisk import web

    real = web.site_files
    with serving() as url, browser.new_context() as context:
        open_page(context, url).close()

        def changed(model):
            files = real(model)
            page = files["index.html"].read_bytes().replace(b"<h1>Asterisk</h1>", b"<h1>Changed</h1>")
            entries = listed(files) | {"index.html": web.entry("index.html", page)}
            headers = files["files.js"].decode().partition(";\n")[2]
            script = f"self.FILES = {json.dumps(entries)};\n{headers}".encode()
            return files | {"index.html": page, "files.js": script}

        monkeypatch.setattr(web, "site_files", changed)
        page = open_page(context, url)  # what is kept is shown at once; the new files come beside it
        page.wait_for_timeout(100)
        page.evaluate(
            """async () => {
                const registration = await navigator.serviceWorker.ready;
                await registration.update();
                const next = registration.installing ?? registration.waiting;
                while (next.state === "installing") await new Promise((resolve) => setTimeout(resolve, 50));
            }"""
        )
        wait_for(page, "#device-bytes", "0.0 MB of 0.0 MB")
        assert page.is_hidden("#working"), "the present version goes on as it was"
        page.close()
        page = open_page(context, url)
        assert page.inner_text("h1") == "Changed"
        assert page.inner_text("#device-bytes").startswith("0 MB"), "only what has changed is fetched"
