"""Tune a distilled model on pairs that people have scored: `build/distilled`, a TSV file -> `build/asterisk`.

    python scripts/tune_on_scores.py build/distilled --scores stsb.train.tsv --output build/asterisk

A last, short stage. Distillation on the text that the model was trained on goes on beside it, and the weights
before and after it are averaged, so that the rest is kept (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
models", arXiv:2109.01903). Trained by sentence-transformers; Ctrl-C stops, the same command goes on.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Sequence, Value
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CosineSimilarityLoss,
    EmbedDistillLoss,
    MatryoshkaLoss,
)
from sentence_transformers.sentence_transformer.training_args import MultiDatasetBatchSamplers
from transformers import PreTrainedTokenizerFast
from transformers.trainer_utils import get_last_checkpoint

import modeling_asterisk
from asterisk.data.pairs import load_pairs, split_rows
from asterisk.data.teacher_vectors import load_teacher_vectors, read_rows
from asterisk.errors import InputError, run
from asterisk.evaluation.metrics import spearman
from asterisk.evaluation.models import load_sentence_transformer
from asterisk.evaluation.tables import ScoredPairs, load_scored_pairs
from asterisk.files import (
    atomic_directory,
    code_fingerprint,
    fingerprint,
    read_json,
    replace_directory,
    write_json,
)
from asterisk.training.checkpoints import run_directory, written_in
from asterisk.training.pca import PCA_FILE, load_pca
from asterisk.training.saving import save_sentence_transformer
from modeling_asterisk import AsteriskModel

HIGHEST_SCORE = 5.0  # of STS-B


def scored_dataset(pairs: ScoredPairs) -> Dataset:
    """Lay out scored pairs for a loss that wants cosines between 0 and 1."""
    return Dataset.from_dict(
        {
            "sentence1": pairs.sentences1,
            "sentence2": pairs.sentences2,
            "score": (pairs.scores / HIGHEST_SCORE).tolist(),
        }
    )


def distillation_dataset(arguments: argparse.Namespace, training: dict[str, Any], texts: int) -> Dataset:
    """Draw texts from the training rows of a model, each with the teacher's vector in the model's space.

    Raises:
        InputError: If these are not the pairs and the teacher that the model was trained with.
    """
    pairs, data_fingerprint = load_pairs(arguments.pairs)
    recipe = training["recipe"]
    if data_fingerprint != recipe["data"]:
        raise InputError(f"{arguments.pairs}: {arguments.model} was trained on other pairs ({recipe['data']})")
    *vectors, meta = load_teacher_vectors(arguments.teacher_vectors, data_fingerprint)
    options = recipe["arguments"]
    rows, _ = split_rows(len(pairs), options["val_split"], options["seed"])
    pca = load_pca(arguments.model, meta["dim"])
    rng = np.random.default_rng(arguments.seed)
    rows = np.sort(rng.choice(rows, min(texts, len(rows)), replace=False))
    # One text of each row, its first or its second.
    second = rng.random(len(rows)) < 0.5
    chosen = pairs.select(rows)
    found = [b if use and b else a for a, b, use in zip(chosen["summary"], chosen["article"], second, strict=True)]
    second &= np.array([b is not None for b in chosen["article"]])
    targets = np.where(second[:, None], read_rows(vectors[1], rows), read_rows(vectors[0], rows)) @ pca
    features = Features({"text": Value("string"), "label": Sequence(Value("float32"))})
    return Dataset.from_dict({"text": found, "label": targets.astype(np.float32)}, features=features)


def score(model: SentenceTransformer, pairs: ScoredPairs) -> float:
    """Return the correlation of the model's cosines with the scores, in percent."""
    first, second = (
        model.encode(texts, batch_size=256, convert_to_numpy=True)
        for texts in (pairs.sentences1, pairs.sentences2)
    )
    return spearman((first * second).sum(1), pairs.scores)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, help="directory of the distilled model")
    parser.add_argument("--scores", type=Path, required=True, help="sentence1, sentence2, score 0 to 5 (TSV)")
    parser.add_argument("--dev", type=Path, help="the same for other pairs: correlation to print before and after")
    parser.add_argument("--output", type=Path, required=True, help="directory of the tuned model")
    parser.add_argument(
        "--pairs", type=Path, default=Path("data/pairs"), help="text pairs the model was trained on"
    )
    parser.add_argument(
        "--teacher_vectors", type=Path, default=Path("build/teacher"), help="the teacher's vectors of them"
    )
    parser.add_argument("--epochs", type=int, default=3, help="passes over the scored pairs")
    parser.add_argument(
        "--batch_size", type=int, default=32, help="scored pairs, or texts of distillation, in a step"
    )
    parser.add_argument("--lr", type=float, default=2e-4, help="peak learning rate of AdamW")
    parser.add_argument("--share", type=float, default=0.5, help="of the tuned weights in the average, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order and of the choice of texts")
    return parser.parse_args()


def main() -> None:
    """Tune the model and write the average of the weights before and after."""
    arguments = parse_arguments()
    if not 0 <= arguments.share <= 1:
        raise InputError(f"--share is {arguments.share}: it must be between 0 and 1")
    for name in ("epochs", "batch_size"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}: it must be 1 or more")
    training = read_json(arguments.model / "training_state.json")
    if "weights" not in training:
        raise InputError(
            f"{arguments.model}: no training_state.json here, or a damaged one; choose a model trained here"
        )
    scored = load_scored_pairs(arguments.scores)
    if not (scored.scores.min() >= 0 and scored.scores.max() <= HIGHEST_SCORE):
        raise InputError(f"{arguments.scores}: a score is not between 0 and {HIGHEST_SCORE:g}")
    dev = load_scored_pairs(arguments.dev) if arguments.dev else None
    recipe = {
        "model": training["weights"],
        "scores": fingerprint(arguments.scores),
        "options": {name: getattr(arguments, name) for name in ("epochs", "batch_size", "lr", "share", "seed")},
        "code": code_fingerprint(modeling_asterisk, Path(__file__)),
    }
    if read_json(arguments.output / "training_state.json").get("tuning", {}).get("recipe") == recipe:
        print(f"{arguments.output} is up to date; delete it to tune it again")
        return
    directory = run_directory(arguments.output)
    if read_json(directory / "recipe.json") != recipe:
        shutil.rmtree(directory, ignore_errors=True)
        write_json(directory / "recipe.json", recipe)

    model = load_sentence_transformer(str(arguments.model), device=None)
    model.max_seq_length = training["recipe"]["arguments"]["max_length"]
    steps = arguments.epochs * -(-len(scored.scores) // arguments.batch_size)
    metrics = {"before": score(model, dev)} if dev else {}
    dim = model.get_embedding_dimension() or 0
    trainer = SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(
            output_dir=str(directory),
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=arguments.lr,
            warmup_ratio=0.1,
            # Both losses have their say in every update.
            gradient_accumulation_steps=2,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.ROUND_ROBIN,
            save_strategy="epoch",
            save_total_limit=2,
            logging_steps=20,
            report_to="none",
            seed=arguments.seed,
        ),
        train_dataset={
            "scores": scored_dataset(scored),
            "distillation": distillation_dataset(arguments, training, steps * arguments.batch_size),
        },
        loss={
            "scores": MatryoshkaLoss(model, CosineSimilarityLoss(model), [dim, dim // 2, dim // 4, dim // 8]),
            "distillation": EmbedDistillLoss(model, distance_metric="cosine"),
        },
    )
    inner: AsteriskModel = model[0].auto_model  # type: ignore[assignment]
    before = {name: tensor.cpu().clone() for name, tensor in inner.state_dict().items()}
    with written_in(directory):
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(directory)))
    after = {name: tensor.cpu() for name, tensor in inner.state_dict().items()}
    averaged = {name: torch.lerp(before[name], after[name], arguments.share) for name in before}
    inner.load_state_dict(averaged)
    if dev:
        metrics["after"] = score(model, dev)
        print(f"{arguments.dev.name}: Spearman {metrics['before']:.2f} before, {metrics['after']:.2f} after")
    tuned = AsteriskModel.from_pretrained(arguments.model)
    tuned.load_state_dict(averaged)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        arguments.model
    )  # the other one cuts texts as training did
    with atomic_directory(arguments.output) as temporary:
        save_sentence_transformer(tuned, tokenizer, temporary)
        shutil.copyfile(arguments.model / PCA_FILE, temporary / PCA_FILE)
        state = training | {
            "weights": fingerprint(temporary / "model.safetensors"),
            "tuning": {"recipe": recipe, "scored_pairs": len(scored.scores), "spearman": metrics},
        }
        write_json(temporary / "training_state.json", state)
        if arguments.output.exists():
            replace_directory(arguments.output, arguments.output.with_name(f"{arguments.output.name}.previous"))
    for checkpoint in directory.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    print(f"{arguments.output}: tuned on {len(scored.scores):,} scored pairs")


if __name__ == "__main__":
    run(main)
