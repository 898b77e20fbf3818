"""Transformers 4 and 5: what is trained or saved under one is exported, pushed and loaded under the other."""

import os
import subprocess

import loader_rows
import numpy as np
import pytest
from conftest import MINIATURE, ROOT
from copies import fine_tune

RELEASE = ROOT / "release" / "asterisk"
pytestmark = pytest.mark.skipif(
    "NEXT_PYTHON" not in os.environ, reason="run by make test-next, with transformers 5"
)


def next_python(*arguments):
    """Run Python with transformers 5; return what it prints."""
    command = [os.environ["NEXT_PYTHON"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def models(export, pairs, teacher_vectors, tmp_path_factory):
    """Copies of the released model and a miniature trained under 5, exported under 4."""
    directory = tmp_path_factory.mktemp("models")
    names = ("fine-tuned", "fine-tuned under 5", "trained under 5")
    found = {name: directory / name.replace(" ", "_") for name in names}
    fine_tune(RELEASE, found["fine-tuned"])
    next_python(ROOT / "tests" / "copies.py", RELEASE, found["fine-tuned under 5"])
    data = ("--pairs", pairs, "--teacher_vectors", teacher_vectors, "--cache", directory / "cache")
    next_python(ROOT / "train_accelerate.py", *data, "--output", found["trained under 5"], *MINIATURE)
    for model in found.values():
        result = export(model)
        assert result.code == 0, result.err
    return {"released": RELEASE, **found}


def test_every_loader(models):
    rows = loader_rows.ROWS
    if not loader_rows.NODE_ROOT.exists():
        rows = {name: row for name, row in rows.items() if not name.startswith("transformers.js")}
    assert loader_rows.print_table(models, rows)


@pytest.mark.parametrize("name", ["fine-tuned under 5", "trained under 5"])
def test_pushed(name, models, run_command, tmp_path):
    options = ("--repo_id", "someone/copy", "--results", tmp_path, "--dry_run")
    result = run_command("scripts/push_to_hub.py", models[name], *options)
    assert result.code == 0, result.err


def test_pytorch_loaders_under_5(models, tmp_path):
    references = {model.name: loader_rows.auto_model(model) for model in models.values()}
    np.savez(tmp_path / "references.npz", **references)
    printed = next_python(loader_rows.__file__, *models.values(), "--pytorch", tmp_path / "references.npz")
    print(printed)
    assert printed.count("| 0.99999 |") == 3
