"""The rows that an adaptation trains on, and their targets."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asterisk.data.pairs import load_pairs, split_rows
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.errors import InputError
from asterisk.evaluation.models import load_sentence_transformer
from asterisk.training.adaptation import average_weights, held_out_texts, lay_out, write_archive
from asterisk.training.pca import load_pca

TRAINING = [(f"the heron guarded the bridge at dawn {i}", f"a mole hid the ladder {i}") for i in range(40)]
HELD_OUT = [
    (f"the otter painted the clock at noon {i}", "a lynx crossed the river" if i else "") for i in range(3)
]


@pytest.fixture(scope="module")
def embedded(embed_pairs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("adaptation")
    write_archive((TRAINING, HELD_OUT), {"documents": 9}, directory / "text")
    assert embed_pairs(directory / "text", directory / "teacher").code == 0
    return directory


def test_training_holds_out_the_held_out_rows(embedded, exported, tmp_path):
    val_split = lay_out(embedded / "text", embedded / "teacher", exported, 0.5, 0, tmp_path)
    pairs, fingerprint = load_pairs(tmp_path / "pairs")
    summaries, _, meta = load_teacher_vectors(tmp_path / "targets", fingerprint)
    training, held_out = split_rows(len(pairs), val_split, 0)
    assert len(training) == 60  # 20 of them to rehearse
    assert [row["summary"] for row in pairs.select(held_out)] == [summary for summary, _ in HELD_OUT]
    assert {summary for summary, _ in TRAINING} < set(pairs.select(training)["summary"])

    original, original_fingerprint = load_pairs(embedded / "text")
    expected = load_teacher_vectors(embedded / "teacher", original_fingerprint)[0]
    place = original["summary"].index(TRAINING[7][0])
    np.testing.assert_array_equal(summaries[pairs["summary"].index(TRAINING[7][0])], expected[place])

    known = {summary for summary, _ in [*TRAINING, *HELD_OUT]}
    rehearsed = next(i for i in training if pairs[int(i)]["summary"] not in known)
    own = load_sentence_transformer(str(exported)).encode(pairs[int(rehearsed)]["summary"])
    np.testing.assert_allclose(summaries[rehearsed] @ load_pca(exported, meta["dim"]), own, atol=2e-3)


def test_held_out_texts_have_their_vectors(embedded):
    texts, vectors = held_out_texts(embedded / "text", embedded / "teacher")
    assert len(texts) == len(vectors) == 5  # the text that is missing has none
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_model_of_another_teacher_is_refused(embedded, tmp_path):
    state = {"teacher": {"teacher": "another", "teacher_fingerprint": "ffff"}}
    (tmp_path / "training_state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="its teacher was another; adapt it with the same"):
        lay_out(embedded / "text", embedded / "teacher", tmp_path, 0.5, 0, tmp_path)


def test_weights_are_averaged(tmp_path):
    for name, value in (("before", 1.0), ("after", 2.0)):
        (tmp_path / name).mkdir()
        save_file({"table": np.full((2, 3), value, dtype=np.float16)}, tmp_path / name / "model.safetensors")
    average_weights(tmp_path / "before", tmp_path / "after", 0.75)
    averaged = load_file(tmp_path / "after" / "model.safetensors")["table"]
    assert averaged.dtype == np.float16
    assert (averaged == 1.75).all()
    assert (load_file(tmp_path / "before" / "model.safetensors")["table"] == 1).all()
