"""Kill every stage at random moments, go on, and compare with a run that nobody disturbed -> `results/faults.md`.

    python scripts/hardening/faults.py --kills 40

A stage is started, killed with SIGKILL after a random part of the time that it takes, and started again, until
it was killed so often; a run that ends before its kill is deleted and begun anew. Then it may end, and what it
wrote is compared with what an undisturbed run wrote. All is small and made here: 400 pairs of a rule, a teacher
with random weights.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tabulate import tabulate
from tqdm import tqdm
from transformers import BertConfig, BertModel

from asterisk.errors import run
from asterisk.evaluation.measuring import machine_facts, write_report
from asterisk.search import Index
from asterisk.training.tokenization import build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "release" / "asterisk"
WORDS = ["badger", "heron", "otter", "bridge", "lantern", "harbour", "dawn", "winter", "crossed", "painted", "hid"]
QUERIES = ("a badger at dawn", "the harbour in winter", "who painted the lantern")
TRAIN = (
    *("train_accelerate.py", "--resume", "--tokenizer", "wordpiece:300", "--projection_dim", "32"),
    *("--embedding_size", "32", "--max_length", "32", "--epochs", "2", "--batch_size", "8", "--lr", "1e-3"),
    *("--mixed_precision", "no", "--checkpoint_steps", "5"),
)


def digest(*paths: Path) -> str:
    """Return what tells whether files are the same."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


@dataclass
class Stage:
    """A command, what it writes, and what of this must be as if it had never been killed.

    Attributes:
        command: Script and options, run in the work directory.
        outputs: What is deleted to begin anew.
        result: Returns what is compared.
        ends: Whether the command ends; a watch does not, and `asterisk index` completes its index.
    """

    command: tuple[str, ...]
    outputs: tuple[str, ...]
    result: Callable[[], object]
    ends: bool = True


def sentence(rng: random.Random) -> str:
    """Return some words of a rule."""
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 20)))


def make_inputs() -> None:
    """Write text pairs, notes, a feed, and a teacher with random weights into the current directory."""
    rng = random.Random(0)
    rows = "".join(f"{sentence(rng)} {number}\t{sentence(rng)}\n" for number in range(400))
    Path("pairs.tsv").write_text("summary\tarticle\n" + rows, encoding="utf-8")
    Path("notes").mkdir()
    for number in range(300):
        Path(f"notes/{number}.md").write_text(f"# {sentence(rng)}\n\n{sentence(rng)}\n", encoding="utf-8")
    items = [{"title": sentence(rng), "url": f"http://a.org/{i}", "published": 1e9 + i} for i in range(3000)]
    Path("feed.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    tokenizer = build_tokenizer("wordpiece:300", [sentence(rng) for _ in range(200)], 64)
    torch.manual_seed(0)
    config = BertConfig(len(tokenizer), 64, 2, 2, 128, max_position_embeddings=64, initializer_range=0.3)
    BertModel(config).save_pretrained("bert")
    tokenizer.save_pretrained("bert")
    modules = [Transformer("bert", max_seq_length=24), Pooling(64)]
    SentenceTransformer(modules=modules, device="cpu").save("teacher_model")


def searched() -> object:
    """Return what an index finds, after SQLite's own check of it."""
    connection = apsw.Connection("index.sqlite")
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()
    with Index("index.sqlite", str(MODEL)) as index:
        return [(hit.path.name, round(hit.score, 4)) for query in QUERIES for hit in index.search(query)]


def embedded() -> object:
    """Return rows and vectors of the files that `asterisk embed` wrote."""
    table = pq.read_table("vectors")
    return digest_of(np.array(table["embedding"].to_pylist())), table["id"].to_pylist()[-1], len(table)


def digest_of(array: np.ndarray) -> str:
    """Return what tells whether arrays are the same."""
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def stories() -> object:
    """Return the stories of one more item, which shows what a state remembers."""
    Path("more.jsonl").write_text('{"title": "badger heron", "published": 1000003000}\n', encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "asterisk.cli",
        "dedupe",
        "feed.jsonl",
        "more.jsonl",
        "--state",
        "state.sqlite",
    ]
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, env=environment())
    return shown.stdout, shown.stderr.splitlines()[-1]


ASTERISK = ("-m", "asterisk.cli")
STAGES = {
    "prepare": Stage(
        ("scripts/prepare_data.py", "--dataset", "pairs.tsv", "--output", "pairs"),
        ("pairs",),
        lambda: digest(*sorted(Path("pairs").glob("*.arrow"))),
    ),
    "teacher": Stage(
        (
            "scripts/precompute_teacher.py",
            "--pairs",
            "pairs",
            "--output",
            "teacher",
            "--teacher_model",
            "teacher_model",
        ),
        ("teacher", "teacher.partial"),
        lambda: digest(*sorted(Path("teacher").glob("*.npy"))),
    ),
    "train": Stage(
        (*TRAIN, "--pairs", "pairs", "--teacher_vectors", "teacher", "--output", "model", "--cache", "cache"),
        ("model", "model.run"),
        lambda: digest(Path("model/model.safetensors")),
    ),
    "export": Stage(
        ("export_optimum.py", "--model", "model", "--pairs", "pairs"),
        ("model/onnx",),
        lambda: digest(*sorted(Path("model/onnx").glob("*.onnx"))),
    ),
    "index": Stage((*ASTERISK, "index", "notes", "--index", "index.sqlite"), ("index.sqlite",), searched),
    "watch": Stage(
        (*ASTERISK, "index", "notes", "--index", "index.sqlite", "--watch"),
        ("index.sqlite",),
        searched,
        ends=False,
    ),
    "dedupe": Stage((*ASTERISK, "dedupe", "feed.jsonl", "--state", "state.sqlite"), ("state.sqlite",), stories),
    "embed": Stage(
        (*ASTERISK, "embed", "feed.jsonl", "--column", "title", "--output", "vectors", "--rows_per_file", "200"),
        ("vectors",),
        embedded,
    ),
}


def environment() -> dict[str, str]:
    """Return the environment of the commands."""
    return os.environ | {"ASTERISK_MODEL": str(MODEL), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def start(stage: Stage) -> subprocess.Popen[str]:
    """Start the command of a stage in a process group of its own."""
    first, *further = stage.command
    command = [sys.executable, first if first == "-m" else str(ROOT / first), *further]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=pipe, text=True, env=environment(), start_new_session=True
    )


def finish(stage: Stage) -> float:
    """Run a stage to its end; return the seconds.

    Raises:
        RuntimeError: If it fails.
    """
    if not stage.ends:
        stage = STAGES["index"]
    started = time.monotonic()
    process = start(stage)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(stage.command)} ended with {process.returncode}: {errors[-500:]}")
    return time.monotonic() - started


def remove(stage: Stage) -> None:
    """Delete what a stage wrote, and what SQLite keeps beside it."""
    for name in stage.outputs:
        for path in Path().glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def torture(stage: Stage, kills: int, rng: random.Random, progress: tqdm) -> dict[str, object]:
    """Kill a stage so often; return how it went."""
    seconds = finish(stage)
    expected = stage.result()
    remove(stage)
    ended, failures = 0, []
    for _ in range(kills):
        process = start(stage)
        try:
            _, errors = process.communicate(timeout=rng.uniform(0.02, 1.1) * seconds)
            if process.returncode:
                failures.append(errors.strip().splitlines()[-1] if errors.strip() else str(process.returncode))
            ended += 1
            remove(stage)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        progress.update()
    finish(stage)
    same = stage.result() == expected
    return {"kills": kills - ended, "ended before": ended, "refused to go on": len(failures), "same result": same}


def main() -> None:
    """Kill the stages, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="how often to kill each stage")
    parser.add_argument("--stage", choices=STAGES, action="append", help="which stage; all if left out")
    parser.add_argument("--output", type=Path, default=Path("results/faults"), help="what was found")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    arguments = parser.parse_args()
    output, rng, rows = arguments.output.resolve(), random.Random(arguments.seed), []
    chosen = arguments.stage or list(STAGES)
    with tempfile.TemporaryDirectory() as work, tqdm(total=arguments.kills * len(chosen), unit=" kills") as bar:
        os.chdir(work)
        make_inputs()
        for name, stage in STAGES.items():
            if name not in chosen:
                finish(stage)  # what later stages need
                continue
            bar.set_description(name)
            rows.append({"stage": name, **torture(stage, arguments.kills, rng, bar)})
        os.chdir(ROOT)
    text = tabulate(rows, headers="keys", tablefmt="github")
    write_report(output, "Killed at random moments", text, rows, machine_facts(0))


if __name__ == "__main__":
    run(main)
