"""The released weights: light, described by their own figures, and better than words in a bag."""

import json
import re
import subprocess

import numpy as np
import pytest
from conftest import ROOT

from asterisk import AsteriskEncoder
from asterisk.files import fingerprint

RELEASE = ROOT / "release" / "asterisk"


@pytest.fixture(scope="module")
def encoder():
    return AsteriskEncoder(str(RELEASE))


def test_download_and_clone_are_light():
    files = (RELEASE / "onnx" / "model_quantized.onnx", RELEASE / "tokenizer.json")
    assert sum(path.stat().st_size for path in files) <= 12e6
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listing.returncode == 0:
        tracked = [ROOT / name for name in listing.stdout.split("\0") if name]
        assert sum(path.lstat().st_size for path in tracked if path.exists()) <= 60e6


def test_files_are_those_that_push_to_hub_lays_out(run_command, tmp_path):
    """It opens them with every loader first; and the card has the figures of results/."""
    options = ("--repo_id", "user/asterisk", "--results", ROOT / "results", "--to", tmp_path / "asterisk")
    result = run_command("scripts/push_to_hub.py", RELEASE, *options)
    assert result.code == 0, result.err
    laid_out, released = (
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in (tmp_path / "asterisk", RELEASE)
    )
    assert laid_out.keys() == released.keys()
    assert [name for name in released if laid_out[name] != released[name]] == []


def test_code_served_with_the_weights_is_that_of_the_repository():
    for name in ("modeling_asterisk.py", "configuration_asterisk.py"):
        assert (RELEASE / name).read_bytes() == (ROOT / name).read_bytes()


def test_weights_are_those_of_the_training_state():
    state = json.loads((RELEASE / "training_state.json").read_text())
    assert fingerprint(RELEASE / "model.safetensors") == state["weights"]


def test_card_is_filled_in():
    card = (RELEASE / "README.md").read_text(encoding="utf-8")
    assert not re.search(r"\{\{|\{%|\bNone\b|Not measured", card)
    scores = json.loads((ROOT / "results" / "asterisk.json").read_text())["tasks"]
    (stsb,) = (task for task in scores if task["task_name"] == "STSBenchmark")
    int8 = next(row for row in stsb["scores"]["test"] if row["form"] == "onnx_int8")
    assert f"| {int8['main_score']} |" in card
    for licence in ("PDDL 1.0", "CC BY-SA 4.0", "GPL-3.0"):
        assert licence in card
    run = json.loads((RELEASE / "training_state.json").read_text())
    while run:
        assert f"| {run['rows']['training']:,} | `{run['recipe']['data']}` |" in card
        run = run.get("initial_training")


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("how do I get my money back?", "refund of a purchase", "the bank of the river"),
        ("the match was called off because of rain", "bad weather stopped play", "she struck a match in the dark"),
        ("cheap flights to London", "low-cost air travel to the British capital", "flights of stairs are cheap"),
        ("a man is playing a guitar", "a man plays the guitar", "a man is not playing a guitar"),
    ],
)
def test_meaning_beats_shared_words(encoder, text, near, far):
    text, near, far = encoder.encode([text, near, far])
    assert text @ near > text @ far


def test_first_dimensions_are_embeddings_too(encoder):
    texts = ["the train is late", "delays on the railway", "a recipe for soup", "how to cook broth"]
    for dim in (128, 64, 32):
        cosines = (vectors := encoder.encode(texts, truncate_dim=dim)) @ vectors.T
        assert np.argsort(-cosines, axis=1)[:, 1].tolist() == [1, 0, 3, 2]


def test_word_order_is_a_weakness_as_readme_says(encoder):
    text, other_order, same_meaning = encoder.encode(
        ["a dog chases a cat", "a cat chases a dog", "a cat is chased by a dog"]
    )
    assert text @ other_order > text @ same_meaning
