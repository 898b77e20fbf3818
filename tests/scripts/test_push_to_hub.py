"""Pushing to a local Hub with the real client, and loading from it by name with the real loaders."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import RELEASE, ROOT, refused
from hub_server import HubServer
from huggingface_hub import ModelCard, metadata_load

from asterisk import AsteriskEncoder
from asterisk.evaluation.results import main_scores
from asterisk.export import PROCESSOR_FILES
from asterisk.web import site_files

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
    "AsteriskEncoder, INT8": """
from asterisk import AsteriskEncoder
vectors = AsteriskEncoder(NAME).encode(TEXTS)
""",
}
ONNX_LOADERS = {
    "SentenceTransformer": """
from sentence_transformers import SentenceTransformer
options = {"file_name": "onnx/FILE"}
vectors = SentenceTransformer(NAME, backend="onnx", trust_remote_code=True, model_kwargs=options).encode(TEXTS)
""",
    "ORTModelForFeatureExtraction": """
import numpy as np
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(NAME)
model = ORTModelForFeatureExtraction.from_pretrained(
    NAME, subfolder="onnx", file_name="FILE", trust_remote_code=True
)
inputs = tokenizer(TEXTS, padding=True, return_tensors="np")
vectors = (model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]).sum(1)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
""",
}
for file in ("model.onnx", *PROCESSOR_FILES):
    for name, code in ONNX_LOADERS.items():
        LOADERS[f"{name}, {'fp32' if file == 'model.onnx' else f'INT8: {file}'}"] = code.replace("FILE", file)
TEXTS = ["a heron waits by the mill", "", "rain on the roof"]
INT8 = ("onnx_int8", 32, "float32")
PROCESSOR_NAMES = {f"onnx/{name}" for name in PROCESSOR_FILES}


@pytest.fixture(scope="module")
def hub():
    with HubServer(token="hf_test") as server:
        yield server


@pytest.fixture(scope="module")
def push(hub, results, run_command):
    """Run push_to_hub.py with the local Hub."""

    def call(model, *arguments, token="hf_test", url=hub.url):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.ENDPOINT", url)
            patch.setenv("NO_PROXY", "127.0.0.1")
            options = ("--repo_id", REPO, "--token", token, "--results", results)
            return run_command("scripts/push_to_hub.py", model, *options, *arguments)

    return call


@pytest.fixture(scope="module")
def pushed(hub, push, exported):
    dry = push(exported, "--dry_run")
    assert dry.code == 0, dry.err
    assert "onnx/model_quantized.onnx" in dry.out
    assert hub.requests == 0
    done = push(exported)
    assert done.code == 0, done.err
    assert len(hub.branches[REPO, "main"]) == 2, "one commit after the empty one"
    return hub


@pytest.fixture
def changed(exported, tmp_path):
    """A copy of the model with another file."""
    (shutil.copytree(exported, tmp_path / "model") / "onnx" / "notes.txt").write_text("retrained")
    return tmp_path / "model"


def test_commit_holds_the_model(pushed, exported):
    files = pushed.files(REPO)
    plain = ("model.safetensors", "modeling_asterisk.py", "1_Pooling/config.json", "onnx/model.onnx")
    for name in (*plain, *PROCESSOR_NAMES):
        assert files[name] == (exported / name).read_bytes()
    assert "results/model.json" in files
    assert str(exported) not in files["README.md"].decode() + files["training_state.json"].decode()


def test_files_laid_out_are_those_pushed_once_each(pushed, push, exported, tmp_path):
    done = push(exported, "--to", tmp_path / "model")
    assert done.code == 0, done.err
    paths = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "model").as_posix(): path.read_bytes() for path in paths} == {
        name: content
        for name, content in pushed.files(REPO).items()
        if name not in PROCESSOR_NAMES and not name.startswith("results/")
    }


@pytest.fixture
def cloned(push, exported, tmp_path):
    """The model as a clone of the repository has it."""
    assert push(exported, "--to", tmp_path / "model").code == 0
    return tmp_path / "model"


def test_a_clone_pushes_the_same_files_for_processors(pushed, push, exported, cloned):
    done = push(cloned, "--revision", "clone")
    assert done.code == 0, done.err
    files = pushed.files(REPO, "clone")
    assert {name: files[name] for name in PROCESSOR_NAMES} == {
        name: (exported / name).read_bytes() for name in PROCESSOR_NAMES
    }
    assert not any((cloned / name).exists() for name in PROCESSOR_NAMES)


def test_a_clone_without_ranges_is_refused(hub, push, cloned):
    state = cloned / "onnx" / "export_state.json"
    state.write_text(json.dumps({"recipe": {}, "files": json.loads(state.read_text())["files"]}))
    requests = hub.requests
    done = push(cloned)
    assert done.code == 2
    assert "export it again with export_optimum.py" in done.err.splitlines()[-1]
    assert hub.requests == requests


def test_model_card(pushed, tmp_path, results):
    card_path = tmp_path / "README.md"
    card_path.write_bytes(pushed.files(REPO)["README.md"])
    metadata = metadata_load(card_path)
    assert metadata["library_name"] == "sentence-transformers"
    assert metadata["pipeline_tag"] == "sentence-similarity"
    rows = main_scores(json.loads((results / "model.json").read_text()))
    scores = {row["metric"]: row["score"] for row in rows if (row["form"], row["dim"], row["precision"]) == INT8}
    found = [metric for result in metadata["model-index"][0]["results"] for metric in result["metrics"]]
    assert {metric["type"]: metric["value"] for metric in found} == scores
    assert f"\n# {REPO.partition('/')[2]}\n" in card_path.read_text()
    assert "{{" not in card_path.read_text() and "{%" not in card_path.read_text()
    assert ModelCard.load(card_path).data.license == "mit"


@pytest.mark.slow
def test_every_loader_finds_the_model_by_name(pushed, exported, python, tmp_path):
    program = f"import json, os, shutil\nNAME, TEXTS, found = {REPO!r}, {TEXTS!r}, {{}}\n"
    for name, code in LOADERS.items():
        program += f"{code}\nfound[{name!r}] = vectors.tolist()\n"
        program += "shutil.rmtree(os.environ['HF_HOME'] + '/hub')\n"  # the next one downloads what it needs itself
    result = python("-c", f"{program}\nprint(json.dumps(found))", env=pushed.environment(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    expected = AsteriskEncoder(str(exported), "onnx/model.onnx").encode(TEXTS)
    for name, vectors in json.loads(result.stdout.splitlines()[-1]).items():
        assert (np.array(vectors) * expected).sum(1).min() >= (0.99 if "INT8" in name else 0.99999), name


@pytest.mark.slow
def test_pushing_again(pushed, push, exported, changed):
    before = list(pushed.branches[REPO, "main"])
    assert "is up to date" in push(exported).out
    assert pushed.branches[REPO, "main"] == before

    assert push(changed, "--revision", "trial").code == 0
    assert pushed.files(REPO, "trial")["onnx/notes.txt"] == b"retrained"
    assert pushed.branches[REPO, "main"] == before

    assert push(exported, "--revision", "trial").code == 0
    assert pushed.files(REPO, "trial") == pushed.files(REPO), "what is no longer in onnx/ is deleted"


@pytest.mark.slow
def test_failed_push_leaves_the_repository(pushed, push, changed, monkeypatch):
    before = list(pushed.branches[REPO, "main"])

    def refused(**options):
        done = push(changed, **options)
        assert done.code == 2
        assert f"{REPO} is as it was" in done.err.splitlines()[-1]
        assert pushed.branches[REPO, "main"] == before
        return done.err.splitlines()[-1]

    assert refused(token="hf_wrong").startswith("error: the Hub refused (401)")
    monkeypatch.setattr(pushed, "fails", True)
    assert refused().startswith("error: the Hub refused (500)")
    assert refused(url="http://127.0.0.1:9").startswith("error: the connection to the Hub failed")


@pytest.mark.parametrize("file", ["onnx/model_quantized.onnx", "1_Pooling/config.json", "model.safetensors"])
def test_broken_model_is_refused(file, hub, push, changed):
    content = (changed / file).read_bytes()
    (changed / file).write_bytes(content[: len(content) // 2])
    requests = hub.requests
    done = push(changed)
    assert done.code == 2
    assert "not pushed" in done.err.splitlines()[-1]
    assert hub.requests == requests


def test_a_directory_of_something_else_is_not_replaced(exported, run_command, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    message = refused(run_command("scripts/push_to_hub.py", exported, "--repo_id", "a/b", "--to", tmp_path))
    assert "holds no model" in message
    assert (tmp_path / "thesis.txt").exists()


def test_page_is_pushed_as_a_static_space(hub, push):
    if not (ROOT / "web" / "node_modules").exists():
        pytest.skip("the page's libraries are not installed: no npm on this machine")
    done = push(RELEASE, "--space", "--repo_id", "user/asterisk-search")
    assert done.code == 0, done.err
    files = hub.files("user/asterisk-search")
    assert files == {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in site_files(RELEASE).items()
    } | {"README.md": files["README.md"]}
    card = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert card["sdk"] == "static"
    assert card["custom_headers"] == {
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    assert "is up to date" in push(RELEASE, "--space", "--repo_id", "user/asterisk-search").out


def test_page_without_its_libraries_is_refused(push, monkeypatch, tmp_path):
    monkeypatch.setattr("asterisk.web.WEB", tmp_path)
    message = refused(push(RELEASE, "--space", "--repo_id", "user/asterisk-search"))
    assert "run `npm ci --ignore-scripts` in web/" in message
