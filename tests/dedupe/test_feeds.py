"""Feeds as they are found: every form, with what is missing, malformed or hostile in them."""

import json

import pytest

from asterisk.dedupe import Item, read_items

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>The Harbour Post</title>
<item><title>Ferry &lt;b&gt;aground&lt;/b&gt; off Alder</title><link>https://post.example/1?utm_source=rss</link>
<description><![CDATA[<p>All 40 aboard</p><p>are safe.</p><script>alert(1)</script>]]></description>
<pubDate>Mon, 02 Mar 2026 10:00:00 +0100</pubDate></item>
<item><link>https://post.example/2</link></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Brack Daily</title>
<entry><title>Bridge closed</title><id>tag:1</id><link href="https://brack.example/a"/>
<updated>2026-03-02T09:00:00Z</updated>
<content type="html">&lt;p&gt;For repairs&lt;/p&gt;</content></entry></feed>"""
JSON_FEED = {
    "version": "https://jsonfeed.org/version/1.1",
    "title": "Cinder News",
    "items": [
        {"id": "1", "url": "https://cinder.example/1", "title": "Mill sold", "content_html": "<i>At last</i>"},
        {"id": "2", "content_text": "Rain until Friday", "date_published": "2026-03-02T09:00:00+00:00"},
    ],
}
NINE = 1772442000.0  # 2026-03-02T09:00:00Z


@pytest.fixture
def read(tmp_path):
    """Write a file, read its items; return them with what was reported."""

    def call(name, content, directory=tmp_path):
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        problems = []
        items = list(read_items([str(directory / name)], problems.append))
        return items, [problem.removeprefix(str(directory / name)).strip() for problem in problems]

    return call


def test_rss(read):
    items, problems = read("feed", RSS)
    text = "All 40 aboard are safe."
    assert items == [
        Item("Ferry aground off Alder", text, "https://post.example/1?utm_source=rss", NINE, "The Harbour Post")
    ]
    assert problems == ["item 2: neither a title nor a text; left out"]


def test_atom(read):
    items, problems = read("feed", ATOM)
    assert items == [Item("Bridge closed", "For repairs", "https://brack.example/a", NINE, "Brack Daily")]
    assert problems == []


@pytest.mark.parametrize("indent", [None, 2])
def test_json_feed(read, indent):
    items, problems = read("feed", json.dumps(JSON_FEED, indent=indent))
    assert items == [
        Item("Mill sold", "At last", "https://cinder.example/1", None, "Cinder News"),
        Item("", "Rain until Friday", "", NINE, "Cinder News"),
    ]
    assert problems == []


def test_json_lines(read):
    lines = [
        '{"title": "A", "link": "https://a.example", "date": 1772442000}',
        "",
        "{broken",
        '{"url": "x"}',
        "[1]",
    ]
    items, problems = read("items.jsonl", "\n".join(lines))
    assert items == [Item("A", "", "https://a.example", NINE, "")]
    assert [problem.partition(":")[0] for problem in problems] == ["line 3", "line 4", "item 1"]


@pytest.mark.parametrize(
    "date",
    [1772442000, 1772442000000, "2026-03-02T10:00:00+01:00", "Mon, 02 Mar 2026 09:00:00 GMT", "2026-03-02 9:00"],
)
def test_dates_in_usual_forms(read, date):
    items, problems = read("items.jsonl", json.dumps({"title": "a", "date": date}))
    assert (items[0].published, problems) == (NINE, [])


def test_a_bad_first_line_hides_no_other(read):
    items, problems = read("items.jsonl", '{"title": "a"\n{"title": "b"}\n{"title": "c"}\n')
    assert [item.title for item in items] == ["b", "c"]
    assert [problem.partition(":")[0] for problem in problems] == ["line 1"]


def test_a_list_of_objects(read):
    items, _ = read("items.json", json.dumps([{"title": "a"}, {"title": "b"}], indent=1))
    assert [item.title for item in items] == ["a", "b"]


def test_blank_lines_before_a_feed(read):
    items, problems = read("feed", "\n" * 9000 + ATOM)
    assert [item.title for item in items] == ["Bridge closed"]
    assert problems == []


def test_less_than_is_no_markup(read):
    items, _ = read(
        "items.jsonl", json.dumps({"title": "List<String> if a<b and c>d", "text": "<p>so &amp; so</p>"})
    )
    assert (items[0].title, items[0].text) == ("List<String> if a<b and c>d", "so & so")


def test_numbers_of_rows_are_no_addresses(read):
    items, _ = read("items.csv", "id,title\n1,a\n2,b\n")
    assert [item.url for item in items] == ["", ""]


def test_quote_that_is_never_closed(read):
    items, problems = read("items.csv", 'title,url\na,1\n"b,2\nc,3\n')
    assert [item.title for item in items] == ["a"]
    assert problems == ["line 3: not a row of cells (unexpected end of data); left out"]


@pytest.mark.parametrize("date", ["soon", "-1e300", -1, 1e300, float("nan"), "9" * 40])
def test_what_is_no_date_is_named(read, date):
    items, problems = read("items.jsonl", json.dumps({"title": "a", "date": date}))
    assert items == [Item("a")]
    assert problems[0].endswith("is no date; taken as of now")


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_table(read, separator):
    rows = [
        ["Title", "Summary", "Published"],
        ["Mill sold", "At last", "2026-03-02 09:00"],
        ["x"],
        ["y", "", "soon"],
    ]
    items, problems = read("items.csv", "\n".join(separator.join(row) for row in rows))
    assert items == [Item("Mill sold", "At last", "", NINE, ""), Item("y")]
    assert problems == ["line 3: 1 cells instead of 3; left out", "line 4: 'soon' is no date; taken as of now"]


def test_quoted_cells_may_hold_line_ends(read):
    items, problems = read("items.csv", 'title,url\n"Mill\nsold",u\nb\n')
    assert items[0].title == "Mill sold"
    assert problems == ["line 4: 1 cells instead of 2; left out"]


def test_opml_names_files_links_and_feeds_on_the_net(read, tmp_path):
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / "brack.xml").write_text(ATOM)
    (tmp_path.parent / "secret.xml").write_text(ATOM)
    items, problems = read(
        "feeds.opml",
        """<opml version="2.0"><body><outline text="news">
        <outline text="Brack" type="rss" xmlUrl="feeds/brack.xml"/>
        <outline text="Post" type="rss" xmlUrl="https://post.example/rss"/>
        <outline text="Secret" type="rss" xmlUrl="../secret.xml"/>
        <outline text="Gone" type="rss" xmlUrl="gone.xml"/>
        <outline text="A page to read" type="link" url="https://page.example"/></outline></body></opml>""",
    )
    assert [item.title for item in items] == ["Bridge closed", "A page to read"]
    assert any("../secret.xml is outside" in problem for problem in problems)
    assert any("gone.xml: no such file" in problem for problem in problems)
    assert any("1 feeds on the net were not fetched" in problem for problem in problems)


def test_entities_are_not_expanded_from_files(read, tmp_path):
    (tmp_path / "secret").write_text("hidden")
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>'
    opml = f'{entity}<opml version="2.0"><body><outline text="a" url="u"/>&e;</body></opml>'
    feed = f"{entity}<rss version='2.0'><channel><item><title>a &e;</title></item></channel></rss>"
    for document in (opml, feed):
        items, _ = read("feed", document)
        assert "hidden" not in repr(items)


def test_truncated_feed_is_read_as_far_as_it_goes(read):
    items, problems = read("feed", RSS[: RSS.index("<item><link>")])
    assert [item.title for item in items] == ["Ferry aground off Alder"]
    assert problems[0].startswith(": damaged")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": empty"),
        (b"<html><body>Not found</body></html>", ": neither a feed nor OPML, JSON lines or CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: not UTF-8; left out"),
        (b"just words\nand more\n", "line 1: no header with a column title or text; left out"),
        (b"<opml><body>", ": damaged"),
    ],
)
def test_what_is_no_feed_is_named(read, content, problem):
    items, problems = read("file", content)
    assert items == []
    assert problems[0].startswith(problem)


def test_lines_that_are_not_utf8_are_left_out(read):
    items, problems = read("items.csv", b"title,url\nA,1\nCaf\xe9,2\nB,3\n")
    assert [item.title for item in items] == ["A", "B"]
    assert problems == ["line 3: not UTF-8; left out"]


def test_half_of_a_surrogate_pair_is_replaced(read):
    items, _ = read("items.jsonl", r'{"title": "a \ud83d b", "url": "u"}')
    assert items[0].title == "a � b"


@pytest.mark.parametrize(
    "url",
    [
        "https://Post.example/a?id=3",
        "http://post.example/a?id=3#comments",
        "https://post.example/a?utm_source=rss&id=3&fbclid=x",
        "https://post.example:443/a?id=3",
    ],
)
def test_addresses_of_one_page_are_equal(url):
    assert Item("a", url=url).address == "post.example/a?id=3"


def test_addresses_of_other_pages_differ():
    urls = ["https://post.example/a?id=3", "https://post.example/a?id=4", "https://other.example/a?id=3"]
    assert len({Item("a", url=url).address for url in urls}) == 3
    for name in ("tag:post.example,2026:1", "http://[::1", ""):
        assert Item("a", url=name).address == name
