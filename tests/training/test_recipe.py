"""Whether a model is up to date and a run can go on is decided from all the code that has a part in the result."""

import pkgutil
import shutil
import signal

from conftest import refused

import asterisk.training
from asterisk.training import losses, recipe

# `arguments` are in the recipe by value, what `adaptation` makes is data; the others decide how a run is kept.
WITHOUT_PART = {"adaptation", "arguments", "checkpoints", "memory", "precision", "recipe"}
SAID_OTHERWISE = losses, '"""Mean of 1 - cosine', '"""The mean of 1 - cosine'
OTHER_LOSS = losses, "return 1 - (student * target)", "return 2 - (student * target)"


def test_changed_loss_refuses_a_resume(train, at_step, change_source, tmp_path, monkeypatch):
    output = tmp_path / "model"
    with monkeypatch.context():
        at_step(3, lambda: signal.raise_signal(signal.SIGINT))
        assert train(output).code == 130
        monkeypatch.undo()
    change_source(*OTHER_LOSS)
    assert "its checkpoints were made with another code; train with the same" in refused(train(output, "--resume"))


def test_changed_loss_makes_a_finished_model_stale(train, trained, at_step, change_source, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    change_source(*SAID_OTHERWISE)
    assert "is up to date" in train(model).out
    change_source(*OTHER_LOSS)
    at_step(1, lambda: signal.raise_signal(signal.SIGINT))
    assert "stopped at step 1" in train(model).err


def test_every_module_that_has_a_part_counts():
    modules = {module.name for module in pkgutil.iter_modules(asterisk.training.__path__)}
    counted = {module.__name__.rpartition(".")[2] for module in recipe.CODE}
    assert modules - counted == WITHOUT_PART
