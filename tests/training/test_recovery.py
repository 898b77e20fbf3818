"""Training that is interrupted, killed, starved or spread: nothing is lost, and the result is the same."""

import os
import resource
import shlex
import signal
import sys
from pathlib import Path

import gradients
import numpy as np
import pytest
from accelerate import Accelerator
from conftest import MINIATURE, ROOT, losses, refused, weights
from safetensors.numpy import load_file

LAUNCH_TWO = (
    "-m",
    "accelerate.commands.launch",
    "--config_file",
    ROOT / "scripts" / "launch_configs" / "cpu.yaml",
)


@pytest.fixture
def options(pairs, teacher_vectors, tmp_path):
    """Return the options of the training command for a process of its own."""

    def build(output, *further):
        paths = ("--pairs", pairs, "--teacher_vectors", teacher_vectors, "--cache", tmp_path / "cache")
        return (*paths, "--output", output, *MINIATURE, *further)

    return build


def test_ctrl_c_saves_and_the_printed_command_goes_on(train, trained, run_command, at_step, tmp_path, monkeypatch):
    output = tmp_path / "model"
    with monkeypatch.context():
        at_step(18, lambda: signal.raise_signal(signal.SIGINT))
        result = train(output)
        monkeypatch.undo()
    assert result.code == 130
    message, _, command = result.err.strip().splitlines()[-1].partition("; go on with: ")
    assert message == "stopped at step 18"
    assert not output.exists()

    changed = train(output, "--resume", "--lr", 0.002)
    assert "its checkpoints were made with another lr; train with the same" in refused(changed)

    python, path, *arguments = shlex.split(command)
    assert (python, Path(path).name, arguments[-1]) == (sys.executable, "train_accelerate.py", "--resume")
    result = run_command(path, *arguments)
    assert result.code == 0, result.err
    assert "resuming at step 18 of 24" in result.out
    assert weights(output) == weights(trained)
    assert losses(output) == losses(trained)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint_steps", "first"), [(12, 12), (500, 0)])
def test_crash_leaves_no_trace(train, trained, at_step, tmp_path, monkeypatch, checkpoint_steps, first):
    def crash():
        raise RuntimeError("power cut")

    output = tmp_path / "model"
    with monkeypatch.context():
        at_step(18, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(output, "--checkpoint_steps", checkpoint_steps)
        monkeypatch.undo()
    result = train(output, "--resume")
    assert (f"resuming at step {first} of 24" in result.out) == (first > 0)
    assert weights(output) == weights(trained)
    assert losses(output) == losses(trained), "every step and every epoch is recorded once"


@pytest.mark.slow
def test_killed_again_and_again_and_resumed(train, trained, kill, options, tmp_path):
    output = tmp_path / "model"
    command = ("train_accelerate.py", *options(output, "--resume", "--checkpoint_steps", 5))
    kill("asterisk.training.trainer.DistillationTrainer.step", 8, *command)
    kill("asterisk.training.trainer.finish_checkpoint", 2, *command)  # half of a checkpoint is written
    kill("asterisk.training.saving.save_sentence_transformer", 1, *command)
    result = train(output, "--resume", "--checkpoint_steps", 5)
    assert result.code == 0, result.err
    assert "resuming at step 20 of 24" in result.out
    assert weights(output) == weights(trained)
    assert losses(output) == losses(trained)


def stopped(train, at_step, monkeypatch, output):
    """Train until step 20, with checkpoints at 18 and 20."""
    with monkeypatch.context():
        at_step(20, lambda: signal.raise_signal(signal.SIGTERM))
        assert train(output, "--checkpoint_steps", 9).code == 130
        monkeypatch.undo()
    checkpoints = sorted((output.with_name("model.run") / "checkpoints").iterdir())
    assert [checkpoint.name for checkpoint in checkpoints] == ["step-00000018", "step-00000020"]
    return checkpoints


@pytest.mark.slow
def test_truncated_checkpoint_gives_way_to_the_one_before(train, trained, at_step, monkeypatch, tmp_path):
    output = tmp_path / "model"
    checkpoints = stopped(train, at_step, monkeypatch, output)
    os.truncate(checkpoints[1] / "model.safetensors", 1000)
    result = train(output, "--resume", "--checkpoint_steps", 9)
    assert f"{checkpoints[1]}: model.safetensors is damaged; not used\n" in result.err
    assert "resuming at step 18 of 24" in result.out
    assert weights(output) == weights(trained)


@pytest.mark.slow
def test_no_whole_checkpoint_is_an_error(train, at_step, monkeypatch, tmp_path):
    checkpoints = stopped(train, at_step, monkeypatch, tmp_path / "model")
    (checkpoints[0] / "optimizer.bin").unlink()
    (checkpoints[1] / "progress.json").write_text("{")
    result = train(tmp_path / "model", "--resume")
    assert result.code == 2
    lines = result.err.splitlines()
    assert lines[0] == f"{checkpoints[1]}: progress.json is damaged; not used"
    assert lines[1] == f"{checkpoints[0]}: optimizer.bin is damaged; not used"
    assert lines[2].endswith("no whole checkpoint is left; delete that directory to start over")
    assert all(checkpoint.is_dir() for checkpoint in checkpoints)


@pytest.mark.slow
def test_full_disk_is_one_line_and_loses_nothing(train, python, options, at_step, monkeypatch, trained, tmp_path):
    output = tmp_path / "model"
    stopped(train, at_step, monkeypatch, output)

    def limit_files():  # stands for a disk that fills up
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    further = ("--resume", "--checkpoint_steps", 2)
    full = python(ROOT / "train_accelerate.py", *options(output, *further), preexec_fn=limit_files)
    assert full.returncode == 2, full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {output}.run: cannot be written to (")
    assert last.endswith("free some space, then go on from step-00000020 with --resume")
    assert "Traceback" not in full.stderr
    left = sorted(path.name for path in (tmp_path / "model.run" / "checkpoints").iterdir())
    assert left == ["step-00000018", "step-00000020"]
    result = train(output, *further)
    assert "resuming at step 20 of 24" in result.out
    assert weights(output) == weights(trained)


def test_loss_that_is_not_finite_stops_the_run(train, tmp_path):
    result = train(tmp_path / "model", "--lr", 1e18, "--warmup_ratio", 0, "--checkpoint_steps", 1)
    assert result.code == 2
    message = result.err.splitlines()[-1]
    assert message.startswith("error: the loss is nan at step 1, rows [")
    assert message.endswith(f"the last good checkpoint is {tmp_path / 'model.run/checkpoints/step-00000001'}")
    assert not (tmp_path / "model").exists()


# Several processes


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(python, tmp_path):
    path = tmp_path / "gradients.npz"
    child = python(*LAUNCH_TWO, gradients.__file__, path)
    assert child.returncode == 0, child.stderr
    one, two = gradients.collect(Accelerator(mixed_precision="no"), tmp_path / "model"), dict(np.load(path))
    assert two.pop("processes") == 2
    assert one.keys() == two.keys()
    for name, expected in one.items():
        scale = max(np.abs(expected).max(), 1e-4)
        assert np.abs(two[name] - expected).max() / scale < 1e-5, name


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_double_batch(train, python, options, tmp_path):
    one = train(tmp_path / "one", "--epochs", 1, "--batch_size", 32)
    assert one.code == 0, one.err
    command = (ROOT / "train_accelerate.py", *options(tmp_path / "two", "--epochs", 1, "--checkpoint_steps", 3))
    two = python(*LAUNCH_TWO, *command)
    assert two.returncode == 0, two.stderr
    for first, second in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-3)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 1e-3
