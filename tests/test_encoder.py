"""AsteriskEncoder: the vectors of sentence-transformers, without torch."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import invent_pairs
from sentence_transformers import SentenceTransformer

from asterisk import AsteriskEncoder
from asterisk.errors import InputError

TEXTS = [text for pair in invent_pairs(60, seed=2) for text in pair.values() if text]
TEXTS += ["", "Ünïcödé: 🐢!", " ".join(TEXTS[:8])]


@pytest.fixture(scope="module")
def encoder(exported):
    return AsteriskEncoder(str(exported), "onnx/model.onnx", threads=1)


@pytest.fixture(scope="module")
def expected(exported):
    model = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu", local_files_only=True)
    return model.encode(TEXTS)


def test_fp32_vectors_are_those_of_sentence_transformers(encoder, expected):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 32)
    assert np.abs(vectors - expected).max() < 1e-4


def test_int8_is_the_default_and_close(exported, expected):
    vectors = AsteriskEncoder(str(exported)).encode(TEXTS)
    assert (vectors * expected).sum(1).min() >= 0.99
    assert np.abs(vectors - expected).max() > 1e-5


def test_order_does_not_depend_on_batches(encoder):
    vectors = encoder.encode(TEXTS, batch_size=7)
    reverse = encoder.encode(TEXTS[::-1], batch_size=50)
    assert np.abs(vectors - reverse[::-1]).max() < 1e-5
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


def test_one_text_gives_one_vector(encoder):
    assert encoder.encode(TEXTS[3]).shape == (32,)
    assert np.allclose(encoder.encode(TEXTS[3]), encoder.encode(TEXTS)[3], atol=1e-5)


def test_truncated_vectors_are_normalised(encoder):
    full, short = encoder.encode(TEXTS), encoder.encode(TEXTS, truncate_dim=8)
    assert short.shape == (len(TEXTS), 8)
    assert np.allclose(short, full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(encoder.encode(TEXTS[0], truncate_dim=8), short[0], atol=1e-5)


def test_no_text(encoder):
    assert encoder.encode([]).shape == (0, 32)


def test_generator_is_read_in_blocks(encoder, monkeypatch):
    monkeypatch.setattr("asterisk.encoder.BLOCK", 10)
    drawn = []
    embed_block = encoder.embed_block

    def watch(block, *arguments):
        assert len(drawn) % 10 == 0 or len(drawn) == len(TEXTS), "more texts were read than a block holds"
        return embed_block(block, *arguments)

    monkeypatch.setattr(encoder, "embed_block", watch)
    vectors = encoder.encode(drawn.append(text) or text for text in TEXTS)
    monkeypatch.undo()
    assert len(drawn) == len(TEXTS)
    assert np.abs(vectors - encoder.encode(TEXTS)).max() < 1e-5


def test_progress_counts_texts(encoder, capsys):
    encoder.encode(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_eight_threads_share_an_encoder(exported):
    encoder = AsteriskEncoder(str(exported))
    expected = encoder.encode(TEXTS)
    parts = [TEXTS[i::8] for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            for i, vectors in enumerate(pool.map(encoder.encode, parts)):
                assert np.abs(vectors - expected[i::8]).max() < 1e-6


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (None, "sentences is a NoneType, not a string"),
        (b"a heron", "sentences is a bytes, not a string"),
        (7, "sentences is a int, not a string"),
        (["a heron", None], "sentence 1 is a NoneType, not a string"),
        ([b"a heron"], "sentence 0 is a bytes, not a string"),
    ],
)
def test_what_is_not_text_is_refused(encoder, sentences, message):
    with pytest.raises(TypeError, match=message):
        encoder.encode(sentences)


def test_only_the_beginning_of_a_very_long_text_is_tokenised(encoder, monkeypatch):
    texts = ["the otter crossed the bridge of Aldermoor at dawn. " * 1000, "otter" + " " * 40_000 + "bridge"]
    assert encoder.tokenizer.encode(texts[0]).ids != encoder.tokenizer.encode(texts[1]).ids
    expected = np.concatenate([encoder.embed_tokens([encoder.tokenizer.encode(text).ids]) for text in texts])
    lengths = []
    tokenizer = encoder.tokenizer

    class Watch:
        def encode_batch_fast(self, texts):
            lengths.extend(map(len, texts))
            return tokenizer.encode_batch_fast(texts)

        def encode(self, text):
            lengths.append(len(text))
            return tokenizer.encode(text)

    monkeypatch.setattr(encoder, "tokenizer", Watch())
    assert np.abs(encoder.encode(texts) - expected).max() < 1e-6
    assert lengths == [19_995, 5, len(texts[1])]


def test_word_that_the_cut_would_split_is_whole(encoder):
    text = "otter " * 509 + " " * 16_945 + "bridge lantern"  # the last token that counts is "bridge"
    expected = encoder.embed_tokens([encoder.tokenizer.encode(text).ids])
    assert np.abs(encoder.encode([text]) - expected).max() < 1e-6


def test_lone_surrogate_is_named(encoder):
    with pytest.raises(ValueError, match="sentence 1 holds half of a surrogate pair"):
        encoder.encode(["a heron", "a \udce9 mole"])


def test_files_that_cannot_be_used(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"onnx/model_int3\.onnx: no such file"):
        AsteriskEncoder(str(exported), "onnx/model_int3.onnx")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: no such file"):
        AsteriskEncoder(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "model.onnx").write_bytes(b"half")
    with pytest.raises(InputError, match=r"tokenizer\.json: damaged"):
        AsteriskEncoder(str(tmp_path), "model.onnx")
    shutil.copyfile(exported / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"model\.onnx: damaged"):
        AsteriskEncoder(str(tmp_path), "model.onnx")
    shutil.copyfile(exported / "onnx" / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"config\.json: missing or damaged"):
        AsteriskEncoder(str(tmp_path), "model.onnx")
