"""make_baselines: two static models, made once; LSA is that of scikit-learn."""

import pytest
from conftest import invent_pairs, load_script, write_pairs
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from asterisk.evaluation.scoring import shorten


def test_lsa_is_that_of_scikit_learn():
    texts = [text for pair in invent_pairs(80) for text in pair.values() if text]
    matrix = TfidfVectorizer(token_pattern=r"\w+", min_df=2).fit_transform(texts)
    expected = shorten(TruncatedSVD(64, random_state=0).fit_transform(matrix), 64)
    module = load_script("scripts/make_baselines.py").fit_lsa(texts)
    features = module.tokenize(texts)
    found = shorten(module(features)["sentence_embedding"].detach().numpy()[:, :64], 64)
    assert (found @ found.T)[:20, :20] == pytest.approx((expected @ expected.T)[:20, :20], abs=0.02)


def test_both_models_are_made_once(run_command, teacher, tmp_path):
    pairs = write_pairs(tmp_path / "pairs", invent_pairs(300))
    options = ("--pairs", pairs, "--teacher_model", teacher, "--output", tmp_path / "baselines")
    result = run_command("scripts/make_baselines.py", *options)
    assert result.code == 0, result.err
    for name in ("model2vec", "lsa"):
        vectors = SentenceTransformer(str(tmp_path / "baselines" / name), device="cpu").encode(
            ["the otter hid", ""]
        )
        assert vectors[0] @ vectors[0] == pytest.approx(1, abs=1e-3)
    assert run_command("scripts/make_baselines.py", *options).out.count("is up to date") == 2
