"""docs/fine_tuning.md is one program: its blocks are run in turn, in a directory with the released model."""

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ANIMALS, DEEDS, ROOT, THINGS
from safetensors import safe_open

from asterisk import AsteriskEncoder

pytestmark = pytest.mark.slow

RELEASE = ROOT / "release" / "asterisk"
PAGE = (ROOT / "docs" / "fine_tuning.md").read_text(encoding="utf-8")
INTENTS = [(animal, thing) for animal in ANIMALS for thing in THINGS]
NEW = {f"is the {thing} for the {animal}": f"{thing} of {animal}" for animal, thing in INTENTS[::9]}


def load(directory, **options):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), trust_remote_code=True, device="cpu", **options)


@pytest.fixture(scope="module")
def page(run_command, tmp_path_factory):
    """Run the page; return the directory, the names of its Python program and what its commands printed."""
    directory, names, printed = tmp_path_factory.mktemp("page"), {}, {}
    (directory / "release").symlink_to(ROOT / "release")
    examples = [
        f"the {animal} {deed} the {thing}\t{thing} of {animal}\n"
        for animal, thing in INTENTS
        for deed in DEEDS[:2]
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.M | re.S):
            if language == "text":
                (directory / "examples.tsv").write_text(block + "".join(examples))
            elif language == "python":
                exec(block, names)
            else:
                for line in block.splitlines():
                    _, command, *arguments = shlex.split(line)
                    result = run_command(command, *arguments)
                    assert result.code == 0, result.err
                    printed[command] = result.out
    return SimpleNamespace(directory=directory, names=names, printed=printed)


@pytest.mark.parametrize("name", ["fine_tuned", "merged"])
@pytest.mark.parametrize("dim", [256, 32])
def test_texts_are_nearer_to_their_intents(page, name, dim):
    def margin(directory):
        model = load(directory, truncate_dim=dim)
        cosines = model.similarity(model.encode(list(NEW)), model.encode(list(NEW.values()))).numpy()
        return np.diag(cosines).mean() - cosines.mean()

    assert margin(page.directory / "build" / name) > margin(RELEASE) + 0.01


def test_attached_and_merged_are_the_same(page):
    texts = [*NEW, ""]
    released, attached, merged = (
        model.encode(texts)
        for model in (load(RELEASE), page.names["model"], load(page.directory / "build" / "merged"))
    )
    assert (attached * merged).sum(1).min() > 0.99999
    assert (attached * released).sum(1).min() < 0.9995, "training changed it"


def test_nothing_of_the_adapter_is_left_in_the_merged_model(page):
    merged = page.directory / "build" / "merged"
    with (
        safe_open(merged / "model.safetensors", "numpy") as ours,
        safe_open(RELEASE / "model.safetensors", "numpy") as theirs,
    ):
        assert set(ours.keys()) == set(theirs.keys())
    assert not list(merged.glob("adapter*"))


def test_exported_and_ready_to_be_pushed(page):
    merged, texts = page.directory / "build" / "merged", [*NEW, ""]
    expected = load(merged).encode(texts)
    assert (AsteriskEncoder(str(merged)).encode(texts) * expected).sum(1).min() > 0.99
    pushed = page.printed["scripts/push_to_hub.py"]
    for name in ("onnx/model_quantized.onnx", "modeling_asterisk.py", "model.safetensors", "README.md"):
        assert re.search(rf" MB  {name}$", pushed, flags=re.M)
