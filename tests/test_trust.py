"""What commands may not do: run what a file brings, or send anything."""

import os
import pickle
import shutil
import signal
import subprocess

import pytest
from conftest import RELEASE, ROOT, refused

from asterisk import AsteriskEncoder
from asterisk.errors import InputError
from asterisk.files import fingerprint, read_json, write_json
from asterisk.training.pca import PCA_FILE

# Reports every look-up and connection of this process to standard error.
WATCHED = """
import sys
from asterisk.cli import main
sys.addaudithook(lambda event, values: event in ("socket.connect", "socket.getaddrinfo") and print("NET", values))
main()
"""


class Trap:
    """An object that touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.open, (str(self.path), os.O_CREAT)


@pytest.fixture
def trap(tmp_path):
    """Return a pickle, and a function that says whether it was opened."""
    path = tmp_path / "sprung"
    return pickle.dumps(Trap(path)), path.exists


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "onnx/model_quantized.onnx"])
def test_the_encoder_opens_no_pickle(tmp_path, trap, name):
    model = shutil.copytree(RELEASE, tmp_path / "model")
    content, sprung = trap
    (model / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        AsteriskEncoder(str(model))
    assert not sprung()


@pytest.mark.parametrize("name", ["model.safetensors", PCA_FILE])
def test_training_opens_no_pickle_of_a_model(train, trained, tmp_path, trap, name):
    model = shutil.copytree(trained, tmp_path / "initial")
    content, sprung = trap
    (model / name).write_bytes(content)
    (model / "pytorch_model.bin").write_bytes(content)
    result = train(tmp_path / "model", "--initial_model", model)
    assert name in refused(result)
    assert not sprung()


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
def test_training_opens_no_pickle_of_a_checkpoint(train, at_step, tmp_path, trap, monkeypatch, name):
    """Not even of one whose fingerprints are right."""
    with monkeypatch.context():
        at_step(18, lambda: signal.raise_signal(signal.SIGINT))
        train(tmp_path / "model")
        monkeypatch.undo()
    content, sprung = trap
    (checkpoint,) = (tmp_path / "model.run" / "checkpoints").glob("step-*18")
    assert {file.name for file in checkpoint.iterdir()} == {
        *("model.safetensors", "optimizer.bin", "random_states_0.pkl", "progress.json")
    }
    (checkpoint / name).write_bytes(content)
    progress = read_json(checkpoint / "progress.json")
    progress["files"][name] = fingerprint(checkpoint / name)
    write_json(checkpoint / "progress.json", progress)
    result = train(tmp_path / "model", "--resume")
    assert result.code == (
        2 if name == "optimizer.bin" else 0
    )  # random states are not worth a refusal to Accelerate
    assert not sprung()


@pytest.mark.parametrize(
    "arguments",
    [
        ("index", "notes", "--index", "index.sqlite"),
        ("dedupe", "feed.jsonl"),
        ("embed", "feed.jsonl", "--column", "title", "--output", "vectors", "--threads", "1"),
    ],
)
def test_commands_ask_nobody(python, tmp_path, arguments):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "page.html").write_text(
        "<html><body><p>Bread</p><img src=http://192.0.2.1/a.png><script src=http://192.0.2.1/a.js></script></body>"
    )
    (tmp_path / "feed.jsonl").write_text('{"title": "Quake hits Lisbon", "url": "http://192.0.2.1/a"}\n')
    environment = os.environ | {"ASTERISK_MODEL": str(RELEASE), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    result = python("-c", WATCHED, *arguments, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert "NET" not in result.stdout


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-rn", "true"], check=False).returncode != 0,
    reason="this system makes no network namespaces",
)
def test_search_works_without_any_network(python, tmp_path):
    """Not even the loopback device is up there."""
    (tmp_path / "note.md").write_text("With the heating cold, add water until one bar.")
    program = f"""
from asterisk.search import Index
with Index({str(tmp_path / "index.sqlite")!r}, {str(RELEASE)!r}) as index:
    index.index({str(tmp_path)!r})
    print(index.search("boiler pressure")[0].path.name)
"""
    isolated = "import os, sys; os.execvp('unshare', ['unshare', '-rn', sys.executable, *sys.argv[1:]])"
    result = python("-c", isolated, "-c", program)
    assert (result.returncode, result.stdout) == (0, "note.md\n"), result.stderr
