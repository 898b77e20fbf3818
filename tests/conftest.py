"""Shared fixtures: 200 invented text pairs, a tiny teacher, a miniature model distilled from it, its ONNX files.

All are made once in a session, by the project's own commands, without a network.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
HF_HOME = tempfile.TemporaryDirectory(prefix="asterisk-tests-")
# Before the first import of torch or a Hugging Face library. One thread: tiny matrices, perhaps on a busy machine.
os.environ |= {"HF_HOME": HF_HOME.name, "OMP_NUM_THREADS": "1"}

ANIMALS = ["badger", "heron", "otter", "lynx", "goose", "weasel", "falcon", "tortoise", "beetle", "mole"]
DEEDS = ["crossed", "guarded", "painted", "forgot", "repaired", "circled", "measured", "hid", "borrowed"]
THINGS = ["bridge", "lantern", "orchard", "harbour", "cellar", "tower", "clock", "river", "ladder", "violin"]
TIMES = ["dawn", "noon", "dusk", "midnight", "winter", "harvest", "spring", "breakfast", "sunset", "carnival"]
VILLAGES = ["Alder", "Brack", "Cinder", "Dun", "Elms", "Fenni", "Grey", "Hazel", "Ivor", "Juni"]
PLACES = [f"{village}{end}" for village in VILLAGES for end in ("moor", "vale", "worth", "bury", "ham")]
ROWS, TEACHER_LENGTH = 200, 24
MINIATURE = (
    *("--tokenizer", "wordpiece:300", "--projection_dim", 32, "--embedding_size", 32, "--max_length", 32),
    *("--epochs", 2, "--batch_size", 16, "--lr", 1e-3, "--mixed_precision", "no"),
)


def invent_pairs(rows, seed=0):
    """Make pairs of one sentence and a longer text; every tenth lacks the second."""
    rng = random.Random(seed)
    pairs = []
    for i in range(rows):
        animal, deed, thing, time, place = map(rng.choice, (ANIMALS, DEEDS, THINGS, TIMES, PLACES))
        sentence = f"the {animal} {deed} the {thing} of {place} at {time}"
        further = [f"a {rng.choice(ANIMALS)} {rng.choice(DEEDS)} the {rng.choice(THINGS)}" for _ in range(i % 5)]
        article = ", and ".join([f"Near {rng.choice(PLACES)}, {sentence}", *further])
        pairs.append({"summary": sentence, "article": None if i % 10 == 9 else article})
    return pairs


def write_pairs(directory, pairs):
    import datasets

    features = datasets.Features(dict.fromkeys(("summary", "article"), datasets.Value("string")))
    datasets.Dataset.from_list(pairs, features=features).save_to_disk(str(directory))
    return directory


def losses(output):
    """Read what a run recorded, less the times."""
    lines = (output.with_name(f"{output.name}.run") / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def weights(output):
    return (output / "model.safetensors").read_bytes()


def refused(result):
    """Return the one line that tells the user about his mistake."""
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    return result.err


@pytest.fixture(scope="session")
def run_command():
    """Run a command's module in this process; return exit code, stdout and stderr."""

    def call(module, *arguments):
        from asterisk.console import run

        out, err, code = io.StringIO(), io.StringIO(), 0
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
            try:
                run(module.main)
            except SystemExit as exit_request:
                code = exit_request.code
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    return call


@pytest.fixture(scope="session")
def python():
    """Run Python in a process of its own, away from the network; return the completed process."""

    def call(*arguments, cwd=None):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", invent_pairs(ROWS))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A SentenceTransformer around a random BERT; it does not normalise its vectors."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    from asterisk.tokenization import build_tokenizer

    directory = tmp_path_factory.mktemp("teacher")
    texts = [text for pair in invent_pairs(ROWS) for text in pair.values() if text]
    tokenizer = build_tokenizer("wordpiece:400", texts, 64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(directory / "bert")
    tokenizer.save_pretrained(directory / "bert")
    modules = [Transformer(str(directory / "bert"), max_seq_length=TEACHER_LENGTH), Pooling(64)]
    SentenceTransformer(modules=modules, device="cpu").save(str(directory / "model"))
    return directory / "model"


@pytest.fixture(scope="session")
def embed_pairs(run_command, teacher):
    """Run precompute_teacher with the tiny teacher."""
    import precompute_teacher

    def call(pairs, output, *arguments):
        options = ("--pairs", pairs, "--output", output, "--teacher_model", teacher, "--precision", "fp32")
        return run_command(precompute_teacher, *options, *arguments)

    return call


@pytest.fixture(scope="session")
def teacher_vectors(embed_pairs, pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("vectors") / "teacher"
    assert embed_pairs(pairs, output).code == 0
    return output


@pytest.fixture(scope="session")
def train(run_command, pairs, teacher_vectors, tmp_path_factory):
    """Run train_accelerate on the 200 pairs; later options override the miniature's."""
    import train_accelerate

    cache = tmp_path_factory.mktemp("cache")

    def call(output, *arguments):
        options = ("--pairs", pairs, "--teacher", teacher_vectors, "--cache", cache, "--output", output)
        return run_command(train_accelerate, *options, *MINIATURE, *arguments)

    return call


@pytest.fixture(scope="session")
def trained(train, tmp_path_factory):
    """The miniature model's directory."""
    output = tmp_path_factory.mktemp("build") / "model"
    result = train(output)
    assert result.code == 0, result.err
    return output


@pytest.fixture(scope="session")
def export(run_command, pairs):
    """Run export_optimum with few texts."""
    import export_optimum

    def call(model):
        few = ("--calibration_texts", 64, "--verification_texts", 64)
        return run_command(export_optimum, "--model", model, "--pairs", pairs, *few)

    return call


@pytest.fixture(scope="session")
def exported(export, trained):
    """The miniature model's directory, with its ONNX files."""
    result = export(trained)
    assert result.code == 0, result.err
    return trained


@pytest.fixture
def at_step(monkeypatch):
    """Do something right after an optimiser step."""

    from train_accelerate import DistillationTrainer

    def install(step, action):
        should_stop = DistillationTrainer.should_stop
        monkeypatch.setattr(
            DistillationTrainer,
            "should_stop",
            lambda self: (self.progress.step == step and action()) or should_stop(self),
        )

    return install
