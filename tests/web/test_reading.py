"""What is taken from each kind of file, what is refused and how; nothing of a note is executed or loaded."""

import pytest
from conftest import RELEASE
from web_pages import NOTES, add_files, listed, paste, search, stored, wait_for

from asterisk.web import site_files

pytestmark = pytest.mark.slow

FILES = {
    "plain.txt": "first line\nsecond line",
    "prose.txt": "A paragraph that goes\nover two lines.\n\nAnother paragraph.",
    "utf16.txt": "\ufeffnaïve café".encode("utf-16-le"),
    "note.md": "---\ntags: [a]\n---\n# Boiler\n\nBleed the **radiator**.\n\n# Router\n\n- reset it\n- wait",
    "page.html": "<title>no</title><nav>menu</nav><h1>Heron</h1><p>It waits<br>long.</p><div>By the mill</div>",
    "blocks.html": "<main>Intro<aside>an aside</aside><details><summary>More</summary>of it</details>"
    "<table><caption>Prices</caption><tr><th>bread<td>milk</table></main><footer>the end</footer>",
    "rows.jsonl": '{"text": "a row", "id": 7}\n\n"a bare string"\n{"title": "T", "body": "B", "n": 1}',
    "odd.jsonl": '{"text": 5, "title": "text is a number"}\n{"text": " ", "title": "text is blank"}\nnull\n7\n'
    '["in a list", 1]\n{"tags": ["inner", {"x": "innermost"}], "constructor": "odd"}',
    "table.csv": 'name,remark\nOtto,"likes, commas"\nEve,none',
    "odd.csv": 'id,text,when\n1,"over\ntwo ""lines""",2026-01-01\n\n2,,never\n3,unquoted, commas, here',
    "extra.csv": "id,name,remark\n7,Ada,without quotes, with a comma",
    "semicolons.csv": 'name;remark\nOtto;"semi; colon"',
    "feed.rss": "<rss><channel><title>no</title><item><title>News</title>"
    "<description>&lt;p&gt;Rain &amp;amp; wind&lt;/p&gt;</description></item></channel></rss>",
    "feed.atom": '<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>Entry</title><summary>Sun</summary></entry></feed>',
    "outline.opml": '<opml><body><outline text="Top"><outline text="Below" _note="deep"/></outline></body></opml>',
}
TEXTS = {
    "plain.txt": ["first line", "second line"],
    "prose.txt": ["A paragraph that goes over two lines.\nAnother paragraph."],
    "utf16.txt": ["naïve café"],
    "note.md": ["Boiler\nBleed the radiator.", "Router\nreset it\nwait"],
    "page.html": ["Heron\nIt waits long.\nBy the mill"],
    "blocks.html": ["Intro\nan aside\nMore\nof it\nPrices\nbread\nmilk\nthe end"],
    "rows.jsonl": ["a row", "a bare string", "T\nB"],
    "odd.jsonl": ["text is a number", "text is blank", "in a list", "inner\ninnermost\nodd"],
    "table.csv": ["Otto\nlikes, commas", "Eve\nnone"],
    "odd.csv": ['over two "lines"', "never", "unquoted"],
    "extra.csv": ["Ada\nwithout quotes\nwith a comma"],
    "semicolons.csv": ["Otto\nsemi; colon"],
    "feed.rss": ["News\nRain & wind"],
    "feed.atom": ["Entry\nSun"],
    "outline.opml": ["Top", "Below\ndeep"],
}
HOSTILE = """
<script>window.executed = "script"; fetch("/stolen")</script>
<img src="/stolen.png" onerror="window.executed = 'onerror'">
<svg onload="window.executed = 'onload'"><image href="/stolen.svg"></image></svg>
<iframe src="/stolen.html" srcdoc="<script>parent.executed = 'srcdoc'</script>"></iframe>
<link rel="stylesheet" href="/stolen.css">
<style>@import "/stolen.css"; body { background: url(/stolen.gif) }</style>
<video src="/stolen.mp4" poster="/stolen.jpg"></video><meta http-equiv="refresh" content="0; url=/stolen">
<a href="javascript:window.executed = 'link'">a harmless link</a> ![image](/stolen.webp)
<p onmouseover="window.executed = 'mouse'">The words <b>of</b> the note</p>
"""


def test_each_kind_of_file(page, tmp_path):
    add_files(page, tmp_path, FILES)
    assert page.inner_text("#error") == ""
    found = {}
    for passage in stored(page):
        found.setdefault(passage["source"], []).append(passage["text"])
    assert found == TEXTS


def test_folder_without_its_hidden_files(page, tmp_path):
    for name in ("notes/a.md", "notes/deep/b.txt", "notes/.obsidian/workspace.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.name}")
    page.set_input_files("#folder", tmp_path / "notes")
    wait_for(page, "#delete", "Delete 2 passages of 2 sources")
    assert {passage["source"] for passage in stored(page)} == {"notes/a.md", "notes/deep/b.txt"}
    wait_for(page, "#status", "Ready.")


def test_dropped_folder(page, tmp_path):
    for name in ("notes/a.md", "notes/deep/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {path.name}")
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "notes")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 100, "y": 100, "data": data})
    wait_for(page, "#delete", "Delete 2 passages of 2 sources")
    assert {passage["source"] for passage in stored(page)} == {"notes/a.md", "notes/deep/b.txt"}
    wait_for(page, "#status", "Ready.")


def test_long_text_is_cut_behind_sentences(page):
    paste(page, [" ".join(f"The heron waits by the mill, and nobody counts {i} hours." for i in range(40))])
    texts = [passage["text"] for passage in stored(page)]
    assert len(texts) == 4 and all(len(text) <= 600 and text.endswith("hours.") for text in texts)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("worded " * 150, [594, 454]),  # no sentence ends: whole words
        ("".join(map(str, range(100, 500))), [600, 600]),
        ("x" + "\N{GRINNING FACE}" * 1000, [600, 401]),  # each is two units in JavaScript
    ],
)
def test_long_sentence_is_cut_behind_words_and_whole_characters(page, tmp_path, text, lengths):
    add_files(page, tmp_path, {"long.txt": text})
    found = [passage["text"] for passage in stored(page)]
    assert [len(piece) for piece in found] == lengths
    assert "".join(found) == text.strip() if " " not in text else " ".join(found) == text.strip()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "photo.txt",
            b"\x89PNG\r\n\x1a\n\0\0\0",
            "photo.txt: not text in UTF-8; save it as that, or leave it",
        ),
        ("latin.md", "naïve".encode("latin-1"), "latin.md: not text in UTF-8"),
        ("song.mp3", b"ID3", "song.mp3: not a kind of file that this page reads"),
        ("bad.jsonl", '{"text": "fine"}\n{"text": ', "bad.jsonl: row 2 is not JSON"),
        ("bad.csv", 'a,b\n1,"never closed\n', "bad.csv: row 2 has a quote that does not end"),
        ("bad.rss", "<rss><item>", "bad.rss: not well-formed XML"),
        ("empty.txt", "", "empty.txt: no text in it"),
        ("frames.html", '<frameset><frame src="/stolen"></frameset>', "frames.html: no text in it"),
        ("deep.md", ">" * 30_000, "deep.md: nested too deeply; left out"),
        ("deep.jsonl", "[" * 200_000 + "]" * 200_000, "deep.jsonl: row 1 is not JSON"),
        ("name.constructor", "x", "name.constructor: not a kind of file that this page reads"),
    ],
)
def test_unreadable_file_is_one_sentence_and_the_others_are_read(page, tmp_path, name, content, message):
    add_files(page, tmp_path, {name: content, "good.txt": "a good line"})
    assert page.inner_text("#error").startswith(message)
    assert [passage["text"] for passage in stored(page)] == ["a good line"]


def test_every_file_that_is_left_out_is_told(page, tmp_path):
    others = {f"picture{number}.png": b"" for number in range(3)}
    broken = {f"broken{number}.jsonl": "{" for number in range(6)}
    add_files(page, tmp_path, others | {"empty.md": "\n"})
    told = page.inner_text("#error").splitlines()
    pictures = "picture0.png and 2 other files: not a kind of file that this page reads; left out"
    assert told == ["empty.md: no text in it", pictures]
    add_files(page, tmp_path, broken)
    told = page.inner_text("#error").splitlines()
    assert [line.split(":")[0] for line in told[:5]] == list(broken)[:5]
    assert told[5:] == ["and 1 other file"]


def test_file_that_cannot_be_opened(page):
    message = page.evaluate(
        """async () => {
            const { readFile } = await import("./reading.js");
            const open = async () => { throw new DOMException("gone", "NotFoundError"); };
            return readFile({ name: "gone.txt", open }).catch((error) => error.message);
        }"""
    )
    assert message == "gone.txt: cannot be opened; see whether it was moved or is protected"


def test_text_that_is_dragged_into_a_field_is_left_to_the_browser(page):
    left = page.evaluate(
        """() => ["pasted", "query", "map-title"].map((id) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.setData("text/plain", "a line");
            const event = new DragEvent("dragover", { dataTransfer, bubbles: true, cancelable: true });
            return document.getElementById(id).dispatchEvent(event);
        })"""
    )
    assert left == [True, True, False]


def test_file_of_200_megabytes(page, tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    page.set_input_files("#files", path)
    wait_for(page, "#error", "huge.txt: 200 MB, and at most 50 are read; split it")
    assert stored(page) == []


def test_a_note_is_never_executed_or_loaded(page, tmp_path):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    hostile = {"note.md": f"# Note\n\n{HOSTILE}", "note.html": HOSTILE, "note.txt": HOSTILE}
    add_files(page, tmp_path, hostile | {"note.csv": f'text\n"{HOSTILE.replace(chr(34), chr(34) * 2)}"'})
    paste(page, [HOSTILE.strip(), *NOTES])
    texts = search(page, "the words of the note")
    assert any("The words of the note" in text for text in texts)
    page.fill("#threshold", "0.5")
    for summary in page.locator("#groups summary").all():
        summary.click()
    page.focus("#canvas-box")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    assert page.evaluate("() => window.executed ?? null") is None
    assert [url for url in requests if "stolen" in url] == []
    assert page.locator("main img, main iframe, main script, main a, main svg").count() == 0


def test_full_storage_is_one_sentence_and_loses_nothing(browser, site, tmp_path):
    with browser.new_context() as context:
        page = context.new_page()
        own = sum(entry["bytes"] for entry in listed(site_files(RELEASE)).values() if entry["first"])
        quota = {"origin": site.rstrip("/"), "quotaSize": own + 3_000_000}
        context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", quota)
        page.goto(site)
        wait_for(page, "#status", "Ready.")
        paste(page, NOTES)
        path = tmp_path / "large.txt"
        path.write_text("\n".join(f"line {i} " + "word " * 110 for i in range(12_000)))
        page.set_input_files("#files", path)
        wait_for(page, "#error", "The browser's storage is full; delete texts here, or free space")
        assert [passage["text"] for passage in stored(page)] == NOTES
        assert search(page, "pets resting")[0] in NOTES[:2]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "indexedDB.constructor.prototype.open = () => { throw new DOMException('denied'); }",
            "lets the page keep nothing",
        ),
        (
            "Worker.prototype.postMessage = () => { throw new Error('x'); }",
            "could not be loaded; load the page again.",
        ),
    ],
)
def test_browser_that_denies_something(browser, site, script, message):
    with browser.new_context() as context:
        context.add_init_script(script)
        page = context.new_page()
        page.goto(site)
        wait_for(page, "#error", message)
        assert page.inner_text("#status") == ""


def test_browser_without_simd(browser, site):
    with browser.new_context() as context:
        context.add_init_script("WebAssembly.validate = () => false")
        page = context.new_page()
        page.goto(site)
        wait_for(page, "#error", "This browser lacks SIMD for WebAssembly; a newer one has it.")
