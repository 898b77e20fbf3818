"""The snippets of README run as they stand, on the released weights; its tables name what there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[re.search(r"(?:from|import) (\w+)", s)[1] for s in SNIPPETS])
def test_snippet(snippet, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(snippet, {})


def test_file_map_names_every_file():
    named = set(re.findall(r"`([\w/.]+)`", README))
    for path in [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert path.relative_to(ROOT).as_posix() in named


def test_option_table_names_every_make_variable():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = re.search(r"^VARIABLES := (.*?[^\\])\n", makefile, flags=re.M | re.S)[1].replace("\\", " ").split()
    for name in variables:
        assert f"`{name}`" in README
