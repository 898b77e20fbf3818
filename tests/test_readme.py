"""README and docs: their figures are those of results/, their snippets run, and they name what there is."""

import re

import pytest
from conftest import ROOT
from loader_rows import ROWS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "CONTRIBUTING.md"]}
IMPORTED = re.compile(r"(?:from|import) (\w+)")
SNIPPETS = [
    pytest.param(snippet, id=f"{page.stem}-{IMPORTED.search(snippet)[1]}")
    for page in PAGES
    # Each is one program: test_fine_tuning_page.py and test_scale_page.py run them.
    if page.name not in ("fine_tuning.md", "scale.md")
    for snippet in re.findall(r"^```python\n(.*?)^```", TEXT[page], flags=re.M | re.S)
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet(snippet, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(snippet, {})


def test_figures_and_output_are_those_of_today(python, tmp_path):
    number = re.compile(r"\d+\.\d+")
    (tmp_path / "pages").write_text("\n".join(f"{page} -o {tmp_path / page.name}" for page in PAGES))
    done = python("-m", "cogapp", "-I", "docs", f"@{tmp_path / 'pages'}", cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        text = (tmp_path / page.name).read_text(encoding="utf-8")
        if page.name in ("search.md", "dedupe.md"):  # cosines differ in a digit between processors
            assert number.sub("#", text) == number.sub("#", TEXT[page]), "run `make figures`"
        else:
            assert text == TEXT[page], "run `make figures`"


def test_every_command_is_named():
    named = set(re.findall(r"`([\w/.]+)`", "".join(TEXT.values())))
    for path in [*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        assert path.relative_to(ROOT).as_posix() in named


def test_every_make_variable_is_explained():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = re.search(r"^VARIABLES := (.*?[^\\])\n", makefile, flags=re.M | re.S)[1].replace("\\", " ").split()
    for name in variables:
        assert f"| `{name}` " in TEXT[ROOT / "docs" / "training.md"]


@pytest.mark.parametrize("page", [*TEXT, *sorted((ROOT / "results").glob("*.md"))], ids=lambda page: page.name)
def test_files_that_are_linked_or_named_exist(page):
    text = page.read_text(encoding="utf-8")
    files = [page.parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    files += [ROOT / name for name in re.findall(r"`((?:asterisk|docs|results|scripts|tests)/[\w/.-]+)`", text)]
    assert [str(file) for file in files if not file.exists()] == []


def test_table_of_loaders_has_every_row():
    text = TEXT[ROOT / "docs" / "loaders.md"]
    assert re.findall(r"^\| ([^|]+) \| \d", text, flags=re.M) == list(ROWS)
