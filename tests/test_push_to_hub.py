"""Pushing to a local Hub and loading from it by name, each in a fresh process with the real clients."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hub_server import HubServer
from huggingface_hub import ModelCard, metadata_load

from asterisk.evaluation_data import main_scores

ROOT = Path(__file__).parents[1]
REPO = "user/asterisk"
LOADERS = {
    "AutoModel": """
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(NAME, trust_remote_code=True)
model = AutoModel.from_pretrained(NAME, trust_remote_code=True).eval()
vectors = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).sentence_embedding.detach().numpy()
""",
    "SentenceTransformer": """
from sentence_transformers import SentenceTransformer
vectors = SentenceTransformer(NAME, trust_remote_code=True, device="cpu").encode(TEXTS)
""",
    "SentenceTransformer, ONNX": """
from sentence_transformers import SentenceTransformer
options = {"file_name": "onnx/model_quantized.onnx"}
vectors = SentenceTransformer(NAME, backend="onnx", trust_remote_code=True, model_kwargs=options).encode(TEXTS)
""",
    "ORTModelForFeatureExtraction": """
import numpy as np
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(NAME)
model = ORTModelForFeatureExtraction.from_pretrained(
    NAME, subfolder="onnx", file_name="model.onnx", trust_remote_code=True
)
inputs = tokenizer(TEXTS, padding=True, return_tensors="np")
vectors = (model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]).sum(1)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
""",
    "AsteriskEncoder": """
from asterisk import AsteriskEncoder
vectors = AsteriskEncoder(NAME).encode(TEXTS)
""",
}
TEXTS = ["a heron waits by the mill", "", "rain on the roof"]
INT8 = ("onnx_int8", 32, "float32")


@pytest.fixture(scope="module")
def results(exported, pairs, teacher_vectors, run_command, tmp_path_factory):
    """The evaluation of the miniature model."""
    directory = tmp_path_factory.mktemp("results")
    options = ("--pairs", pairs, "--teacher", teacher_vectors, "--results", directory)
    assert run_command(evaluate, exported, *options).code == 0
    return directory


@pytest.fixture(scope="module")
def hub():
    with HubServer(token="hf_test") as server:
        yield server


@pytest.fixture(scope="module")
def push(hub, results, tmp_path_factory):
    """Run push_to_hub.py as a user would, with an empty cache."""
    home = tmp_path_factory.mktemp("home")

    def call(model, *arguments, **environment):
        command = [
            sys.executable,
            ROOT / "scripts" / "push_to_hub.py",
            model,
            "--repo-id",
            REPO,
            "--results",
            results,
        ]
        return subprocess.run(
            list(map(str, [*command, *arguments])),
            env=hub.client_env(home) | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture(scope="module")
def pushed(hub, push, exported):
    dry = push(exported, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "onnx/model_quantized.onnx" in dry.stdout
    assert hub.requests == []
    done = push(exported)
    assert done.returncode == 0, done.stderr
    return hub


def test_commit_holds_the_model(pushed, exported):
    files = pushed.files(REPO)
    for name in ("model.safetensors", "modeling_asterisk.py", "1_Pooling/config.json", "onnx/model.onnx"):
        assert files[name] == (exported / name).read_bytes()
    assert "results/model.json" in files
    assert str(exported) not in files["README.md"].decode() + files["training_state.json"].decode()


def test_files_laid_out_are_those_pushed(pushed, push, exported, tmp_path):
    done = push(exported, "--to", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    paths = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {p.relative_to(tmp_path / "model").as_posix(): p.read_bytes() for p in paths} == {
        name: content for name, content in pushed.files(REPO).items() if name != ".gitattributes"
    }
    again = push(tmp_path / "model", "--results", tmp_path / "none")  # it brings its own results
    assert again.returncode == 0, again.stderr
    assert "is up to date" in again.stdout
    onnx = tmp_path / "model" / "onnx"
    assert sorted(path.name for path in onnx.iterdir() if not path.is_symlink()) == [
        "export_state.json",
        "model.onnx",
        "model_quantized.onnx",
    ]


def test_model_card(pushed, tmp_path, results):
    card_path = tmp_path / "README.md"
    card_path.write_bytes(pushed.files(REPO)["README.md"])
    metadata = metadata_load(card_path)
    assert metadata["library_name"] == "sentence-transformers"
    assert metadata["pipeline_tag"] == "sentence-similarity"
    (result,) = metadata["model-index"][0]["results"]
    rows = main_scores(json.loads((results / "model.json").read_text()))
    (score,) = (row["score"] for row in rows if (row["form"], row["dim"], row["precision"]) == INT8)
    assert result["metrics"][0]["value"] == score
    assert result["dataset"]["split"] == "test"
    assert f"\n# {REPO.partition('/')[2]}\n" in card_path.read_text()
    assert "{{" not in card_path.read_text() and "{%" not in card_path.read_text()
    assert ModelCard.load(card_path).data.license == "mit"


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_load_by_name(name, pushed, exported, tmp_path):
    code = f"NAME, TEXTS = {REPO!r}, {TEXTS!r}\n{LOADERS[name]}\nimport json; print(json.dumps(vectors.tolist()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=pushed.client_env(tmp_path), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu").encode(TEXTS)
    cosines = (np.array(json.loads(done.stdout.splitlines()[-1])) * expected).sum(1)
    assert cosines.min() >= (0.99 if name in ("SentenceTransformer, ONNX", "AsteriskEncoder") else 0.99999)


@pytest.mark.slow
def test_pushing_again(pushed, push, exported, tmp_path):
    before = pushed.commits(REPO)
    again = push(exported)
    assert "up to date" in again.stdout
    assert pushed.commits(REPO) == before

    changed = shutil.copytree(exported, tmp_path / "model")
    (changed / "notes.txt").write_text("retrained")
    assert push(changed).returncode == 0
    assert len(pushed.commits(REPO)) == len(before) + 1
    assert pushed.files(REPO)["notes.txt"] == b"retrained"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrong token", "error_500", "cut_lfs_upload"])
def test_failed_push_leaves_the_repository(fault, pushed, push, exported, tmp_path):
    before = pushed.commits(REPO)
    changed = shutil.copytree(exported, tmp_path / "model")
    state = json.loads((changed / "onnx" / "export_state.json").read_text())
    (changed / "onnx" / "export_state.json").write_text(json.dumps(state | {"note": fault}))
    (changed / "onnx" / "large.npy").write_bytes(fault.encode() * 1000)  # a name that the Hub keeps in LFS
    environment = {}
    if fault == "wrong token":
        environment["HF_TOKEN"] = "hf_wrong"
    elif fault == "error_500":
        pushed.fail_next("error_500", on=("commit",))
    else:
        pushed.fail_next("cut_lfs_upload")
        pushed.fail_next("error_403")  # a refusal ends the client's long series of retries
    done = push(changed, **environment)
    pushed.faults.clear()
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "as it was" in done.stderr
    assert "Traceback" not in done.stderr
    assert pushed.commits(REPO) == before


@pytest.mark.slow
@pytest.mark.parametrize("file", ["onnx/model_quantized.onnx", "1_Pooling/config.json", "model.safetensors"])
def test_broken_model_is_refused(file, hub, push, exported, tmp_path):
    broken = shutil.copytree(exported, tmp_path / "model")
    content = (broken / file).read_bytes()
    (broken / file).write_bytes(content[: len(content) // 2])
    requests = len(hub.requests)
    done = push(broken)
    assert done.returncode == 2
    assert "not pushed" in done.stderr
    assert len(hub.requests) == requests
