"""Measure what fine-tuning gains, forgets and costs -> `<results>/fine_tuning.md`, `fine_tuning.json`.

    python scripts/benchmarks/fine_tuning.py --data_dir DIRECTORY

The task is CLINC150: what people say to an assistant, with 150 intents. A few examples of each are drawn from its
train part; an example and the name of its intent are a pair to train on. Each way to train has a process of its
own, and its model is then exported, calibrated on the same examples. What is gained is the accuracy on the test
part, by a logistic regression on the vectors of the examples; what is forgotten, the correlation on STS-B dev.

The settings below were chosen on other rows of the train part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from tqdm import tqdm

from asterisk.errors import InputError, run
from asterisk.evaluation.measuring import SEED, machine_facts, peak_memory_mb, run_fresh, write_report
from asterisk.evaluation.models import FORM_NAMES, load_forms, load_sentence_transformer
from asterisk.evaluation.results import markdown_table
from asterisk.evaluation.scoring import embed_all, look_up, shorten
from asterisk.evaluation.tables import load_scored_pairs
from asterisk.evaluation.task_files import load_classification
from asterisk.evaluation.tasks import Classification, Similarity, Task
from asterisk.files import write_text

ROOT = Path(__file__).parents[2]
METHODS = ("all weights", "LoRA")
EPOCHS, BATCH_SIZE, LEARNING_RATE, RANK = 3, 64, 1e-3, 16
MEASURES = {"CLINC150": "CLINC150, accuracy, %", "STSBenchmark": "STS-B dev, Spearman, %"}
COSTS = {
    "parameters": "parameters trained",
    "seconds": "seconds of training",
    "processor_s": "seconds of processor time, all cores together",
    "peak_memory_mb": "peak memory of training, MB",
}


def draw_examples(task: Classification, count: int) -> dict[str, list[str]]:
    """Draw `count` texts of each label from the train part: columns text, label.

    Raises:
        InputError: If a label has fewer.
    """
    rows = pd.DataFrame(task.train)
    for label, found in rows["label"].value_counts().items():
        if found < count:
            raise InputError(f"--examples is {count}: the train part has {found} of {label!r}; ask for fewer")
    drawn = rows.groupby("label").sample(count, random_state=SEED)
    return {column: drawn[column].to_list() for column in ("text", "label")}


def train(method: str, model: str, examples: dict[str, list[str]], output: str) -> dict[str, float]:
    """Train in this process, which nothing else is done in, and save the model to `output`.

    Returns:
        Number of trained parameters, seconds, those of the processor on all cores, and peak memory in MB.
    """
    torch.manual_seed(SEED)
    trained = load_sentence_transformer(model)
    adapted = None
    if method == "LoRA":
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        adapted = get_peft_model(trained[0].auto_model, lora)  # type: ignore[arg-type]
    dim = trained.get_embedding_dimension() or 0
    ranking = MultipleNegativesRankingLoss(trained)
    trainer = SentenceTransformerTrainer(
        trained,
        SentenceTransformerTrainingArguments(
            output_dir=f"{output}.run",
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            warmup_ratio=0.1,
            batch_sampler="no_duplicates",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            seed=SEED,
        ),
        train_dataset=Dataset.from_dict(examples),
        loss=MatryoshkaLoss(trained, ranking, [dim, dim // 2, dim // 4, dim // 8]),
    )
    parameters = sum(weights.numel() for weights in trained.parameters() if weights.requires_grad)
    started, processor = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor_s = time.perf_counter() - started, time.process_time() - processor
    peak_mb = peak_memory_mb()
    if adapted:
        adapted.merge_and_unload()
    trained.save(output, create_model_card=False)
    return {
        "parameters": parameters,
        "seconds": seconds,
        "processor_s": processor_s,
        "peak_memory_mb": peak_mb,
    }


def score(model: Path, tasks: list[Task]) -> list[dict[str, Any]]:
    """Score PyTorch and the INT8 file of a model, the latter also with a quarter of the dimensions."""
    figures = []
    for form, divisor in (("pytorch", 1), ("onnx_int8", 1), ("onnx_int8", 4)):
        rows, vectors = embed_all(load_forms(str(model))[form].load(), tasks, f"{model} ({form})")
        dim = vectors.shape[1] // divisor
        embed = look_up(rows, shorten(vectors, dim))
        scores = {task.name: task.score(embed, thorough=False)[task.main] for task in tasks}
        figures.append({"form": form, "dim": dim, **scores})
    return figures


def call(*command: str | Path) -> None:
    """Run another command of the project; if it fails, end with its exit code, below its message."""
    if code := subprocess.run([sys.executable, *command], check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit(code)


def measure(model: Path, intents: Classification, similarity: Task, directory: Path) -> dict[str, dict[str, Any]]:
    """Score a model, then train, export and score a copy of it in each way; return the figures by name."""
    tasks = [intents, similarity]
    figures: dict[str, dict[str, Any]] = {"before": {"scores": score(model, tasks)}}
    names = [label.replace("_", " ") for label in intents.train["label"]]
    examples = {"text": intents.train["text"], "intent": names}
    lines = map("\t".join, [tuple(examples), *zip(*examples.values(), strict=True)])
    write_text(directory / "examples.tsv", "\n".join(lines) + "\n")
    pairs, prepare = directory / "pairs", ROOT / "scripts" / "prepare_data.py"
    call(prepare, "--dataset", directory / "examples.tsv", "--min_chars", "1", "--output", pairs)
    for method in tqdm(METHODS, desc="fine-tuning", unit=" runs"):
        output = directory / method.replace(" ", "_")
        job = {"method": method, "model": str(model), "examples": examples, "output": str(output)}
        cost = run_fresh([__file__, *sys.argv[1:], "--train"], job)
        call(ROOT / "export_optimum.py", "--model", output, "--pairs", pairs)
        figures[method] = cost | {"scores": score(output, tasks)}
    return figures


def render_table(figures: dict[str, dict[str, Any]]) -> str:
    """Lay out the figures as a Markdown table, a column for each model."""
    rows = []
    for task, measured in MEASURES.items():
        for i, form in enumerate(figures["before"]["scores"]):
            name = f"{measured}: {FORM_NAMES[form['form']]}, {form['dim']} numbers"
            rows.append([name, *(f"{model['scores'][i][task]:.2f}" for model in figures.values())])
    for key, name in COSTS.items():
        rows.append([name, *(f"{model[key]:,.0f}" if key in model else "" for model in figures.values())])
    return markdown_table(["", *figures], rows)


def main() -> None:
    """Measure the model before and after each way to train it, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("model", nargs="?", type=Path, default=Path("release/asterisk"), help="directory of an exported model")
    add("--data_dir", type=Path, required=True, help="directory with clinc150.{train,test}.tsv and stsb.dev.tsv")
    add("--examples", type=int, default=10, help="of each intent, to train on")
    add("--results", type=Path, default=Path("build/results"), help="directory to write to")
    add("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(**json.load(sys.stdin))))
        return
    if arguments.examples < 1:
        raise InputError("--examples must be 1 or more")
    intents = load_classification(arguments.data_dir, "CLINC150", "clinc150.train", "clinc150.test")
    intents.train = draw_examples(intents, arguments.examples)
    similarity = Similarity("STSBenchmark", "dev", load_scored_pairs(arguments.data_dir / "stsb.dev.tsv"))
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments.model, intents, similarity, Path(scratch))
    text = (
        f"{render_table(figures)}\n\n"
        f"{arguments.examples} examples of each of {len(set(intents.train['label']))} intents, "
        f"{len(intents.test['text']):,} texts to test; {EPOCHS} epochs in batches of {BATCH_SIZE}, learning rate "
        f"{LEARNING_RATE:g}, LoRA of rank {RANK}. Accuracy: a logistic regression on the vectors of the examples."
    )
    facts = machine_facts(0) | {"peft": version("peft")}
    write_report(arguments.results / "fine_tuning", "Fine-tuning", text, figures, facts)


if __name__ == "__main__":
    run(main)
