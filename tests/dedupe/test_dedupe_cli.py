"""`asterisk dedupe` as a person types it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused

CLI = "asterisk/cli.py"
ITEMS = [
    ("Strong earthquake shakes the island of Samos", "https://a.example/1", "2026-03-02T09:00Z"),
    ("Samos hit by magnitude 6 earthquake", "https://b.example/1", "2026-03-02T10:00Z"),
    ("How to bake a sourdough loaf", "https://a.example/2", "2026-03-02T11:00Z"),
]


def lines(items):
    return "".join(
        json.dumps(dict(zip(("title", "url", "published"), item, strict=True))) + "\n" for item in items
    )


@pytest.fixture
def feed(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(lines(ITEMS))
    return path


@pytest.fixture
def dedupe(run_command):
    return lambda *arguments: run_command(CLI, "dedupe", *arguments)


def test_readable_list(dedupe, feed):
    result = dedupe(feed)
    assert result.code == 0
    heading, first, second, *_, last = result.out.splitlines()
    assert heading.startswith("1  ")
    assert "2026-03-02 09:00" in first and ITEMS[0][0] in first
    assert "2026-03-02 10:00" in second and ITEMS[1][0] in second
    assert ITEMS[2][0] not in result.out
    assert last.startswith("3 new items, 0 seen before; stories: 1 of several items, 1 of one; threshold ")


def test_json_has_every_item_once(dedupe, feed):
    rows = [json.loads(line) for line in dedupe(feed, "--json").out.splitlines()]
    assert sorted(member["url"] for row in rows for member in row["members"]) == sorted(url for _, url, _ in ITEMS)
    assert [len(row["members"]) for row in rows] == [2, 1]
    assert rows[0]["representative"] in rows[0]["members"]
    assert rows[0]["representative"]["cosine"] == pytest.approx(1, abs=1e-3)
    assert rows[1]["members"][0]["published"] == "2026-03-02T11:00:00+00:00"


def test_state_shows_only_what_is_new(dedupe, feed, tmp_path):
    state = tmp_path / "feeds.state"
    assert dedupe(feed, "--state", state).code == 0
    assert dedupe(feed, "--state", state).out.startswith("0 new items, 3 seen before")
    new = ("Samos earthquake: people sleep outdoors", "https://c.example/1", "2026-03-02T12:00Z")
    feed.write_text(lines([*ITEMS, new]))
    assert dedupe(feed, "--state", state, "--borderline").code == 0
    (row,) = map(json.loads, dedupe(feed, "--state", state, "--json").out.splitlines())
    assert [member["new"] for member in row["members"]] == [False, False, True]
    assert row["story"] == 1


def test_borderline_pairs(dedupe, feed):
    result = dedupe(feed, "--borderline", "--threshold", 0.4)
    assert f"{ITEMS[0][0]} | {ITEMS[1][0]}" in result.out
    pair = json.loads(dedupe(feed, "--borderline", "--threshold", 0.4, "--json").out.splitlines()[0])
    assert pair.keys() == {"first", "second", "cosine", "together"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--window", "soon"), "'soon' is no length of time"),
        (("--window", "0d"), "'0d' is no length of time"),
        (("--threshold", "2"), "--threshold"),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(dedupe, feed, options, problem):
    assert problem in refused(dedupe(feed, *options))


def test_what_cannot_be_read_is_named(dedupe, feed, tmp_path):
    assert "gone.xml" in refused(dedupe(tmp_path / "gone.xml"))
    (tmp_path / "page.html").write_text("<html><body>404</body></html>")
    result = dedupe(feed, tmp_path / "page.html")
    assert result.code == 0
    assert result.err == f"{tmp_path / 'page.html'}: neither a feed nor OPML, JSON lines or CSV\n"
    result = dedupe(tmp_path / "page.html")
    assert (result.code, result.err.splitlines()[-1]) == (2, "error: nothing could be read")


def test_control_characters_do_not_reach_the_terminal(dedupe, feed):
    feed.write_text(
        lines([("\x1b[2Jquake on Samos", "u", ITEMS[0][2]), ("\x1b[2Jquake on Samos", "v", ITEMS[0][2])])
    )
    result = dedupe(feed)
    assert "quake on Samos" in result.out
    assert "\x1b" not in result.out


def run(feed, state, program="from asterisk import cli; cli.main()"):
    command = [sys.executable, "-c", program, "dedupe", str(feed), "--state", str(state), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["State.set_vectors", "State.assign", "State.keep"])
def test_killed_at_any_step_nothing_is_lost(feed, tmp_path, place):
    state = tmp_path / "feeds.state"
    program = f"""
import os, signal
from asterisk import cli
from asterisk.dedupe.state import State
{place} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.main()"""
    assert run(feed, state, program=program).returncode == -signal.SIGKILL
    rows = [json.loads(line) for line in run(feed, state).stdout.splitlines()]
    assert [[member["new"] for member in row["members"]] for row in rows] == [[True, True], [True]]
    assert run(feed, state).stdout == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_could_not_be_written_is_shown_again(feed, tmp_path):
    state = tmp_path / "feeds.state"
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "asterisk.cli", "dedupe", str(feed), "--state", str(state)]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: the disk is full; free some space and run the same command again\n"
    assert len(run(feed, state).stdout.splitlines()) == 2
