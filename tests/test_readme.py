"""README and docs: their figures are those of results/, their snippets run, and they name what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "CONTRIBUTING.md"]}
IMPORTED = re.compile(r"(?:from|import) (\w+)")
SNIPPETS = [
    pytest.param(snippet, id=f"{page.stem}-{IMPORTED.search(snippet)[1]}")
    for page in PAGES
    for snippet in re.findall(r"^```python\n(.*?)^```", TEXT[page], flags=re.M | re.S)
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet(snippet, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(snippet, {})


def test_figures_are_those_of_the_results():
    command = [sys.executable, "-m", "cogapp", "-I", "docs", "--check", "--diff", *map(str, PAGES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"run `make figures`\n{done.stdout}{done.stderr}"


def test_every_command_is_named():
    named = set(re.findall(r"`([\w/.]+)`", "".join(TEXT.values())))
    for path in [*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        assert path.relative_to(ROOT).as_posix() in named


def test_every_make_variable_is_explained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = re.search(r"^VARIABLES := (.*?[^\\])\n", makefile, flags=re.M | re.S)[1].replace("\\", " ").split()
    for name in variables:
        assert f"| `{name}` " in TEXT[ROOT / "docs" / "training.md"]


def test_links_lead_somewhere():
    for page, text in TEXT.items():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
