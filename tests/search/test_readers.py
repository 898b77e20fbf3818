"""What each reader finds in a real file of its kind."""

import datetime

import pytest
from search_files import article, message, pdf

from asterisk.search.documents import Unreadable
from asterisk.search.sources import LARGEST, find, read


@pytest.fixture
def read_one(tmp_path):
    """Write a file and read it as the index does."""

    def call(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (source,) = find(path).sources
        return list(read(source, source.content()))

    return call


def texts(document):
    return [block.text for block in document.blocks]


def test_markdown_of_obsidian(read_one):
    (note,) = read_one(
        "Boiler.md",
        "---\ntitle: Heating\ntags: [House, '#repairs/water']\ndate: 2024-05-06\n---\n\n"
        "See [[Plumber Smith|the plumber]] and [[Valves#Types]] #urgent #2024\n\n"
        "## Pressure\n\n![[photo.png|300]] ![[Manual]]\n\n- one *bar*\n- [cold](http://x.y) `tap`\n\n"
        "### In winter\n\n| month | bar |\n|---|---|\n| May | 1 |\n\n```\nopen #valve\n```\n",
    )
    assert note.title == "Heating"
    assert note.tags == ["house", "repairs/water", "urgent"]
    assert datetime.date.fromtimestamp(note.date) == datetime.date(2024, 5, 6)
    assert [(block.text, block.line, block.headings) for block in note.blocks] == [
        ("See the plumber and Valves#Types urgent #2024", 7, ()),
        ("Manual", 11, ("Pressure",)),
        ("one bar", 13, ("Pressure",)),
        ("cold tap", 14, ("Pressure",)),
        ("month | bar", 18, ("Pressure", "In winter")),
        ("May | 1", 20, ("Pressure", "In winter")),
        ("open #valve", 22, ("Pressure", "In winter")),
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# The heading\n\ntext", "The heading"),
        ("text\n\n# Later", "name"),
        ("---\ntitle: 2024\n---\n# Heading", "2024"),
        ("---\n: [broken\n---\ntext", "name"),
        ("---\nunclosed: yes\ntext", "name"),
    ],
)
def test_title_of_a_note(read_one, text, title):
    (note,) = read_one("name.md", text)
    assert note.title == title


def test_front_matter_cannot_run_code(read_one, tmp_path):
    marker = tmp_path / "ran"
    read_one("evil.md", f"---\na: !!python/object/apply:pathlib.Path.touch ['{marker}']\n---\ntext")
    assert not marker.exists()


def test_web_page_without_its_navigation(read_one):
    paragraph = "Descale a kettle with vinegar once a month, at least where the water is hard, and rinse it twice."
    (page,) = read_one("page.html", article("Kettles", *[paragraph] * 4))
    text = " ".join(texts(page))
    assert page.title == "Kettles"
    assert "vinegar" in text
    assert "Subscribe" not in text
    assert "Cookies" not in text


def test_web_page_in_its_own_encoding(read_one):
    page = "<html><head><meta charset='windows-1252'></head><body><p>Crème brûlée needs a torch.</p></body></html>"
    (document,) = read_one("page.htm", page.encode("cp1252"))
    assert texts(document) == ["Crème brûlée needs a torch."]


def test_message(read_one):
    (mail,) = read_one("a.eml", message("=?utf-8?q?caf=C3=A9?=", "First paragraph.\n\nSecond one."))
    assert mail.title == "café"
    assert texts(mail) == ["From: Ada <ada@example.org>\nTo: bob@example.org", "First paragraph.", "Second one."]
    assert mail.date == datetime.datetime(2024, 2, 5, 10, tzinfo=datetime.timezone.utc).timestamp()


def test_message_in_html_or_an_unknown_character_set(read_one):
    html = "Subject: x\nContent-Type: text/html\n\n<p>The <b>invoice</b> is due on Friday, they say.</p>"
    assert "invoice is due" in " ".join(texts(read_one("a.eml", html)[0]))
    unknown = "Subject: x\nContent-Type: text/plain; charset=klingon\n\nnuqneH\n"
    assert texts(read_one("b.eml", unknown)[0]) == ["nuqneH"]


@pytest.mark.parametrize("name", ["Inbox", "mail.mbox"])
def test_mbox(read_one, name):
    box = "".join(f"From a@b Mon Feb  5 10:00:00 2024\n{message(f'no. {i}', f'body {i}')}\n" for i in (1, 2))
    first, second = read_one(name, box)
    assert (first.title, second.title) == ("no. 1", "no. 2")
    assert second.blocks[-1].text == "body 2"
    assert second.blocks[-1].place == "message 2"


def test_pdf(read_one):
    (document,) = read_one("paper.pdf", pdf("Glaciers retreat.", "", "Rivers swell."))
    assert [(block.text, block.place) for block in document.blocks] == [
        ("Glaciers retreat.", "page 1"),
        ("Rivers swell.", "page 3"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_with_a_byte_order_mark(read_one, encoding):
    (document,) = read_one("a.txt", "naïve\r\nlines\r\n\r\n\r\nמים קרים\r\n".encode(encoding))
    assert [(block.text, block.line) for block in document.blocks] == [("naïve\nlines", 1), ("מים קרים", 5)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\xff", "binary"),
        ("a.md", b"text\0text", "binary"),
        ("a.txt", "crème".encode("latin-1"), "not UTF-8"),
        ("a.pdf", b"%PDF-1.4\ngarbage", "damaged"),
        ("a.pdf", pdf(""), "no text in it"),
        ("a.html", b"\0\1\2\3" * 100, "binary"),
        ("a.eml", "\n\nno header", "no header"),
        ("a.txt", b"x" * (LARGEST + 1), "larger than"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_broken_file_is_refused_with_a_reason(read_one, name, content, reason):
    with pytest.raises(Unreadable, match=reason):
        read_one(name, content)
