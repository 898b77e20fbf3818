"""precompute_teacher: the vectors it writes, a killed run that goes on, and vectors of other data refused."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, ROWS, TEACHER_LENGTH, invent_pairs, refused, write_pairs
from sentence_transformers import SentenceTransformer

from asterisk.data.pairs import load_pairs
from asterisk.data.teacher_vectors import load_teacher_vectors
from asterisk.errors import InputError

FILES = ("teacher_summaries.npy", "teacher_articles.npy")
CHUNK_ROWS, MANY = 512, 1800


@pytest.fixture(scope="module")
def many_pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("many") / "pairs", invent_pairs(MANY))


@pytest.fixture(scope="module")
def killed(kill, many_pairs, teacher, tmp_path_factory):
    """The output path of a run that was killed after its second chunk of 512 rows."""
    output = tmp_path_factory.mktemp("killed") / "teacher"
    options = ("--pairs", many_pairs, "--output", output, "--teacher_model", teacher, "--precision", "fp32")
    kill("asterisk.training.teacher.encode_in_token_batches", 3, "scripts/precompute_teacher.py", *options)
    return output


@pytest.fixture
def killed_copy(killed, tmp_path):
    shutil.copytree(killed.with_name("teacher.partial"), tmp_path / "teacher.partial")
    return tmp_path / "teacher"


def test_vectors_are_the_teachers(teacher_vectors, pairs, teacher):
    rows, fingerprint = load_pairs(pairs)
    *arrays, meta = load_teacher_vectors(teacher_vectors, fingerprint)
    model = SentenceTransformer(str(teacher), device="cpu")
    for column, vectors in zip(("summary", "article"), arrays, strict=True):
        texts = rows[column]
        here = np.array([text is not None for text in texts])
        expected = model.encode([text for text in texts if text is not None], normalize_embeddings=True)
        assert vectors.dtype == np.float16
        assert vectors.shape == (ROWS, 64)
        assert np.abs(vectors[here] - expected).max() < 1e-3
        assert np.abs(np.linalg.norm(vectors[here].astype(np.float32), axis=1) - 1).max() < 1e-3
        assert not vectors[~here].any()
    assert 0 < here.sum() < ROWS
    assert meta["teacher"] == str(teacher)
    assert meta["max_length"] == TEACHER_LENGTH
    assert {"rows": ROWS, "dim": 64, "precision": "fp32", "revision": None}.items() <= meta.items()


def test_second_run_is_up_to_date(embed_pairs, pairs, teacher_vectors):
    before = (teacher_vectors / FILES[0]).stat().st_mtime_ns
    result = embed_pairs(pairs, teacher_vectors)
    assert (result.code, result.out) == (0, f"{teacher_vectors} is up to date ({ROWS} rows)\n")
    assert (teacher_vectors / FILES[0]).stat().st_mtime_ns == before


def test_shorter_texts_are_other_vectors(embed_pairs, pairs, teacher_vectors, tmp_path):
    assert embed_pairs(pairs, tmp_path / "teacher", "--max_length", 4).code == 0
    short, full = (np.load(directory / FILES[0]) for directory in (tmp_path / "teacher", teacher_vectors))
    assert np.abs(short - full).max() > 0.01
    assert json.loads((tmp_path / "teacher" / "teacher_meta.json").read_text())["max_length"] == 4


@pytest.mark.slow
def test_killed_run_goes_on_and_ends_with_the_same_bytes(
    embed_pairs, many_pairs, killed_copy, tmp_path, monkeypatch
):
    assert embed_pairs(many_pairs, tmp_path / "uninterrupted").code == 0
    assert not killed_copy.exists()
    encoded, encode = [], SentenceTransformer.encode
    monkeypatch.setattr(
        SentenceTransformer,
        "encode",
        lambda self, texts, **options: encoded.extend(texts) or encode(self, texts, **options),
    )
    result = embed_pairs(many_pairs, killed_copy)
    assert result.code == 0, result.err
    rest = [text for pair in invent_pairs(MANY)[2 * CHUNK_ROWS :] for text in pair.values() if text]
    assert sorted(encoded) == sorted(rest), "two chunks were done, and are not embedded again"
    for name in FILES:
        assert (killed_copy / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()
    left = {"teacher", "uninterrupted"}
    assert {entry.name for entry in tmp_path.iterdir()} == left, "the partial directory is gone"


@pytest.mark.slow
def test_unfinished_run_of_other_data_is_refused(embed_pairs, pairs, killed_copy):
    message = refused(embed_pairs(pairs, killed_copy))
    assert "unfinished run with another dataset_fingerprint, rows lies here" in message


@pytest.mark.slow
def test_unfinished_run_of_another_teacher_is_refused(embed_pairs, many_pairs, teacher, killed_copy, tmp_path):
    shutil.copytree(teacher, tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    message = refused(embed_pairs(many_pairs, killed_copy, "--teacher_model", tmp_path / "other"))
    assert "unfinished run with another teacher, teacher_fingerprint lies here" in message


def test_missing_teacher(embed_pairs, pairs, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(embed_pairs(pairs, tmp_path / "teacher", "--teacher_model", tmp_path / "empty"))
    assert f"{tmp_path / 'empty'}: not a SentenceTransformer" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_vectors_of_changed_data_are_refused(teacher_vectors, tmp_path):
    changed = invent_pairs(ROWS)
    changed[7]["summary"] += "!"
    _, fingerprint = load_pairs(write_pairs(tmp_path / "pairs", changed))
    with pytest.raises(InputError, match="belong to other text pairs"):
        load_teacher_vectors(teacher_vectors, fingerprint)


@pytest.mark.parametrize("damage", ["truncated", "missing", "other rows"])
def test_damaged_vectors_are_refused(teacher_vectors, pairs, tmp_path, damage):
    shutil.copytree(teacher_vectors, tmp_path / "teacher")
    file = tmp_path / "teacher" / FILES[1]
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "missing":
        file.unlink()
    else:
        np.save(file, np.zeros((ROWS - 1, 64), dtype=np.float16))
    with pytest.raises(InputError, match=r"teacher_articles\.npy: .*run scripts/precompute_teacher\.py again"):
        load_teacher_vectors(tmp_path / "teacher", load_pairs(pairs)[1])


@pytest.mark.slow
def test_two_processes_share_the_work(python, teacher, tmp_path, embed_pairs):
    pairs = write_pairs(tmp_path / "pairs", invent_pairs(CHUNK_ROWS + 50))
    assert embed_pairs(pairs, tmp_path / "one").code == 0
    options = ("--pairs", pairs, "--output", tmp_path / "two", "--teacher_model", teacher, "--precision", "fp32")
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", 2, ROOT / "scripts" / "precompute_teacher.py")
    two = python(*launch, *options)
    assert two.returncode == 0, two.stderr
    for name in FILES:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_directory_of_something_else_is_not_replaced(embed_pairs, pairs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "holds no teacher's vectors" in refused(embed_pairs(pairs, tmp_path))
    assert (tmp_path / "thesis.txt").exists()
