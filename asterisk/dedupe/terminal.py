"""Show stories to a person, or to another program as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone

import click

from asterisk.dedupe.stories import Member, Pair, Story
from asterisk.search.terminal import printable


def moment(seconds: float) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def as_json(story: Story) -> str:
    """Return a story as a line of JSON; `cosine` is the mean of the members' cosines with the representative."""

    def member(of: Member) -> dict[str, object]:
        return {**asdict(of), "published": moment(of.published).isoformat(timespec="seconds")}

    cosine = sum(of.cosine for of in story.members) / len(story.members)
    row = {
        "story": story.number,
        "cosine": round(cosine, 4),
        "representative": member(story.representative),
        "members": [member(of) for of in story.members],
    }
    return json.dumps(row, ensure_ascii=False)


def story_lines(story: Story, colour: bool) -> Iterator[str]:
    """Lay out a story: its number and representative, then its items, new ones with a plus."""
    title = printable(story.representative.title)
    yield f"{story.number}  {click.style(title, bold=True) if colour else title}"
    width = shutil.get_terminal_size((100, 24)).columns
    for member in story.members:
        time = moment(member.published).strftime("%Y-%m-%d %H:%M")
        source = f"{member.source}: " if member.source else ""
        line = f"  {'+' if member.new else ' '} {member.cosine:.2f}  {time}  {printable(source + member.title)}"
        line = line if len(line) <= width else f"{line[: width - 2]} …"
        yield click.style(line, dim=True) if colour and not member.new else line


def pair_line(pair: Pair) -> str:
    """Lay out a pair near the threshold."""
    titles = printable(f"{pair.first} | {pair.second}")
    return f"{pair.cosine:.2f}  {'together' if pair.together else 'apart   '}  {titles}"


def summary_line(stories: Sequence[Story], seen: int, threshold: float) -> str:
    """Count what was found."""
    new = sum(member.new for story in stories for member in story.members)
    together = sum(len(story.members) > 1 for story in stories)
    return (
        f"{new:,} new items, {seen:,} seen before; stories: {together:,} of several items, "
        f"{len(stories) - together:,} of one; threshold {threshold:.2f}"
    )
