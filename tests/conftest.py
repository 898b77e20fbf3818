"""Shared fixtures: 200 invented text pairs, a tiny teacher, a model distilled from it, its ONNX files and results.

All are made once in a session, by the project's own commands, without a network.
"""

import importlib.util
import inspect
import io
import json
import logging
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "release" / "asterisk"
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


def load_script(path):
    """Load a script, named by its path in the repository, to call its functions."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_command():
    """Run a command in this process; return exit code, stdout and stderr.

    It is named by its path in the repository, or is a module that `load_script` has loaded.
    """
    from asterisk import errors

    def call(command, *arguments):
        out, err, code = io.StringIO(), io.StringIO(), 0
        disabled = logging.root.manager.disable
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", [str(command), *map(str, arguments)])
            try:
                if isinstance(command, ModuleType):
                    errors.run(command.main)
                else:
                    runpy.run_path(str(ROOT / command), run_name="__main__")
            except SystemExit as exit_request:
                code = exit_request.code
                if isinstance(code, str):
                    print(code, file=sys.stderr)
                    code = 1
            finally:
                logging.disable(disabled)
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    return call


@pytest.fixture(scope="session")
def python():
    """Run Python in a process of its own, away from the network; return the completed process."""

    def call(*arguments, timeout=300, **options):
        command = [sys.executable, *map(str, arguments)]
        options = {"env": os.environ | {"HF_HUB_OFFLINE": "1"}} | options
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.terminate()  # a launcher then ends the processes that it has started
                with suppress(subprocess.TimeoutExpired):
                    process.wait(40)
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def kill(python):
    """Run a command in a process that kills itself at the n-th call of a function."""

    def call(function, number, path, *arguments):
        program = f"""
import os, pkgutil, runpy, signal, sys
owner, _, name = {function!r}.rpartition(".")
owner, calls = pkgutil.resolve_name(owner), []
function = getattr(owner, name)

def count(*arguments, **options):
    calls.append(arguments)
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **options)

setattr(owner, name, count)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
        result = python("-c", program, ROOT / path, *arguments)
        assert result.returncode == -signal.SIGKILL, result.stderr

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

    from asterisk.training.tokenization import build_tokenizer

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
    SentenceTransformer(modules=modules, device="cpu").save(str(directory / "teacher"))
    return directory / "teacher"


@pytest.fixture(scope="session")
def embed_pairs(run_command, teacher):
    """Run precompute_teacher with the tiny teacher."""

    def call(pairs, output, *arguments):
        options = ("--pairs", pairs, "--output", output, "--teacher_model", teacher, "--precision", "fp32")
        return run_command("scripts/precompute_teacher.py", *options, *arguments)

    return call


@pytest.fixture(scope="session")
def teacher_vectors(embed_pairs, pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("vectors") / "teacher"
    assert embed_pairs(pairs, output).code == 0
    return output


@pytest.fixture(scope="session")
def train(run_command, pairs, teacher_vectors, tmp_path_factory):
    """Run train_accelerate on the 200 pairs; later options override the miniature's."""
    cache = tmp_path_factory.mktemp("cache")

    def call(output, *arguments):
        options = ("--pairs", pairs, "--teacher_vectors", teacher_vectors, "--cache", cache, "--output", output)
        return run_command("train_accelerate.py", *options, *MINIATURE, *arguments)

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

    def call(model, *arguments):
        few = ("--calibration_texts", 64, "--verification_texts", 64)
        return run_command("export_optimum.py", "--model", model, "--pairs", pairs, *few, *arguments)

    return call


@pytest.fixture(scope="session")
def exported(export, trained):
    """The miniature model's directory, with its ONNX files."""
    result = export(trained)
    assert result.code == 0, result.err
    return trained


@pytest.fixture(scope="session")
def evaluation_files(tmp_path_factory):
    """A small directory of evaluation files."""
    directory = tmp_path_factory.mktemp("evaluation")
    pairs = invent_pairs(90, seed=7)
    rows = [f"{p['summary']}\t{p['article'] or p['summary']}\t{i % 6}" for i, p in enumerate(pairs)]
    for name, part in (("stsb.dev", rows[:40]), ("stsb.test", rows[40:]), ("sickr.trial", rows[:30])):
        (directory / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *part]) + "\n")
    return directory


@pytest.fixture(scope="session")
def evaluate(run_command, pairs, teacher_vectors):
    """Run evaluate_models with the 200 pairs."""

    def call(results, *arguments):
        options = ("--pairs", pairs, "--teacher_vectors", teacher_vectors, "--results", results)
        return run_command("scripts/evaluate_models.py", *arguments, *options)

    return call


@pytest.fixture(scope="session")
def results(evaluate, exported, teacher, evaluation_files, tmp_path_factory):
    """The results of the miniature model and of its teacher."""
    directory = tmp_path_factory.mktemp("results")
    result = evaluate(directory, exported, teacher, "--data_dir", evaluation_files)
    assert result.code == 0, result.err
    return directory


@pytest.fixture
def at_step(monkeypatch):
    """Do something right after an optimiser step."""
    from asterisk.training.trainer import DistillationTrainer

    def install(step, action):
        should_stop = DistillationTrainer.should_stop
        monkeypatch.setattr(
            DistillationTrainer,
            "should_stop",
            lambda self: (self.progress.step == step and action()) or should_stop(self),
        )

    return install


@pytest.fixture
def change_source(monkeypatch):
    """Let the fingerprint of code see another text in a module."""
    getsource = inspect.getsource

    def change(module, old, new):
        source = getsource(module)
        assert old in source
        monkeypatch.setattr(
            inspect, "getsource", lambda seen: source.replace(old, new) if seen is module else getsource(seen)
        )

    return change


@pytest.fixture(scope="session")
def released_encoder():
    from asterisk import AsteriskEncoder

    return AsteriskEncoder(str(RELEASE), threads=1)


@pytest.fixture
def open_index(tmp_path, released_encoder):
    """Open an index of files with an encoder that is loaded already."""
    from asterisk.search import Index

    opened = []

    def call(path=tmp_path / "data" / "index.sqlite"):
        index = Index(path, str(RELEASE), threads=1)
        index.__dict__ |= {"encoder": released_encoder, "query_encoder": released_encoder}
        opened.append(index)
        return index

    yield call
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index):
    return open_index()


@pytest.fixture
def vault(tmp_path):
    from search_files import NOTES, write_files

    return write_files(tmp_path / "vault", NOTES)


@pytest.fixture(scope="session")
def site():
    """The address of the page in `web/`."""
    from web_pages import serving

    with serving() as url:
        yield url


@pytest.fixture(scope="session")
def launch():
    """Launch Chromium with more arguments."""
    from web_pages import CHROMIUM

    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        yield lambda *arguments: playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *arguments]
        )


@pytest.fixture(scope="session")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def opened(browser, site):
    from web_pages import open_page

    with browser.new_context() as context:
        yield open_page(context, site)


@pytest.fixture
def page(opened):
    """The page of `web/`, ready and empty."""
    from web_pages import wait_for

    if opened.is_enabled("#delete"):
        opened.click("#delete")
        wait_for(opened, "#status", "deleted")
    opened.fill("#query", "")
    return opened
