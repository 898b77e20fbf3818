"""What holds for every text, not only for those that somebody thought of.

`make test` tries some hundred texts, the same every time. For a million others: `EXAMPLES=40000 pytest
tests/test_properties.py --hypothesis-show-statistics`.
"""

import csv
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import RELEASE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asterisk.dedupe import Deduplicator, Item
from asterisk.embed import Job
from asterisk.embed.local import Writer, blocks, check, embed_table
from asterisk.export.verification import FP32_TOLERANCE, INT8_COSINE
from asterisk.search.documents import Document, paragraphs
from asterisk.search.passages import TOKENS, cut

WORDS = st.sampled_from(
    [
        "flood",
        "Lisbon",
        "bank",
        "quake",
        "rises",
        "12",
        "%",
        "the",
        "of",
        "a",
        "naïve",
        "Zürich",
        "東京",
        "😀",
        "é",
        "l'été",
        "O(n²)",
    ]
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.lists(WORDS, max_size=60).map(" ".join),
    st.builds(
        lambda text, times: text * times, st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 400)
    ),
)
TEXTS = st.lists(TEXT, min_size=1, max_size=12)

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
settings.register_profile(
    "default",
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,  # `make test` tries the same texts every time
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def loaders(released_encoder):
    """The released model in three loaders: INT8, fp32 in ONNX Runtime, and PyTorch."""
    import torch

    from asterisk import AsteriskEncoder
    from modeling_asterisk import AsteriskModel

    model = AsteriskModel.from_pretrained(RELEASE).eval()

    def embed(texts):
        rows = [released_encoder.tokenizer.encode(text).ids for text in texts]
        with torch.inference_mode():
            return np.concatenate([model(torch.tensor([ids])).sentence_embedding.numpy() for ids in rows])

    return released_encoder, AsteriskEncoder(str(RELEASE), "onnx/model.onnx"), embed


@given(TEXTS, st.integers(1, 8), st.randoms(use_true_random=False))
@example(["", " ", "\0", "\ufeff", "\u202e", "a" * 50_000], 2, None)
def test_every_text_has_one_unit_vector_whatever_is_beside_it(released_encoder, texts, batch_size, random):
    vectors = released_encoder.encode(texts, batch_size)
    assert vectors.shape == (len(texts), released_encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # finite, too
    order = list(range(len(texts)))
    if random:
        random.shuffle(order)
    again = released_encoder.encode([texts[row] for row in order], batch_size + 1)
    np.testing.assert_allclose(again, vectors[order], atol=1e-5)


@given(st.text(st.characters(categories=["Cs"]), min_size=1), TEXT)
def test_half_a_surrogate_pair_is_refused(released_encoder, half, text):
    with pytest.raises(ValueError, match="surrogate"):
        released_encoder.encode([text + half])


@given(TEXTS)
def test_loaders_agree(loaders, texts):
    quantised, fp32, torch_model = loaders
    expected = torch_model(texts)
    np.testing.assert_allclose(fp32.encode(texts), expected, atol=FP32_TOLERANCE)
    assert (quantised.encode(texts) * expected).sum(axis=1).min() > INT8_COSINE


@given(TEXT, st.integers(8, TOKENS))
def test_passages_hold_the_text_once_and_in_order(released_encoder, text, tokens):
    passages = cut(Document("title", list(paragraphs(text))), released_encoder.tokenizer, tokens)
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())
    lines = [passage.line for passage in passages if passage.line is not None]
    assert lines == sorted(lines)


@given(st.lists(TEXT, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_groups_are_a_partition_whatever_the_order_of_arrival(released_encoder, titles, random):
    items = [Item(title, url=f"https://example.org/{row}", published=1e9) for row, title in enumerate(titles)]

    def groups(items):
        with Deduplicator(released_encoder) as deduplicator:
            deduplicator.add(items)
            return [{member.url for member in story.members} for story in deduplicator.stories()]

    found = groups(items)
    assert sum(map(len, found)) == len(set().union(*found)) == len(items)
    random.shuffle(items)
    assert sorted(map(sorted, groups(items))) == sorted(map(sorted, found))


@given(texts=TEXTS, rows_per_file=st.integers(1, 5), suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_rows_in_are_rows_out_in_the_same_order(released_encoder, texts, rows_per_file, suffix):
    with tempfile.TemporaryDirectory() as directory:
        source, output = Path(directory) / f"texts{suffix}", Path(directory) / "vectors"
        table = pa.table({"row": list(map(str, range(len(texts)))), "text": texts})
        if suffix == ".parquet":
            pq.write_table(table, source)
        elif suffix == ".jsonl":
            source.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            with source.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, table.column_names)
                writer.writeheader()
                writer.writerows(table.to_pylist())
        job = Job([str(source)], output, str(RELEASE), id_columns=["row"], rows_per_file=rows_per_file)
        job.start("local")
        rows_in, writer = {}, Writer(job)
        for number, block, _ in blocks(job):
            rows_in[number] = rows_in.get(number, 0) + len(block)
            writer.add(number, embed_table(block, released_encoder, job.dim, job.precision))
        writer.flush()
        assert all(rows <= rows_per_file for rows in check(job, rows_in).values())
        embedded = pq.read_table(output)
    assert embedded["row"].to_pylist() == table["row"].to_pylist()
    expected = released_encoder.encode(texts)
    for vector, text, row in zip(embedded["embedding"].to_pylist(), texts, expected, strict=True):
        assert not text.strip() if vector is None else np.abs(row - vector).max() < 1e-3
