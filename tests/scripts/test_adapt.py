"""Adaptation to a small folder, whole, with the tiny teacher."""

import json

import pytest
from conftest import invent_pairs, refused

from asterisk import AsteriskEncoder

SECRET = "the strongbox of Cindervale stands behind the violin"


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("notes")
    for i, pair in enumerate(invent_pairs(60, seed=3)):
        (directory / f"{i}.md").write_text(f"# {pair['summary']}\n\n{pair['article'] or SECRET}.\n")
    return directory


@pytest.fixture(scope="module")
def options(exported, teacher):
    return ("--initial_model", exported, "--teacher_model", teacher, "--rehearsal", 0.2, "--epochs", 1)


@pytest.mark.slow
def test_folder_is_learned_after_an_interruption(
    run_command, kill, capfd, notes, options, evaluation_files, tmp_path
):
    output = tmp_path / "adapted"
    command = ("scripts/adapt.py", notes, "--output", output, *options, "--data_dir", evaluation_files)
    kill("asterisk.training.adaptation.lay_out", 1, *command)
    other = run_command("scripts/adapt.py", evaluation_files, "--output", output, *options)
    assert "an unfinished run with another dataset" in refused(other)
    capfd.readouterr()

    result = run_command(*command)
    assert result.code == 0, result.err
    assert "is up to date" in capfd.readouterr().out  # the teacher's vectors, of the first call
    assert "60 documents" in result.out
    for figure in ("cosine to the teacher's vectors, %", "of the teacher's 10 nearest", "STS-B test, Spearman, %"):
        assert figure in result.out
    assert not output.with_name("adapted.archive").exists()
    assert AsteriskEncoder(str(output)).encode(["a heron waits"]).shape == (1, 32)

    pushed = run_command("scripts/push_to_hub.py", output, "--repo_id", "user/adapted", "--results", tmp_path)
    assert "--allow_adapted" in refused(pushed)
    laid_out = tmp_path / "laid_out"
    command = ("scripts/push_to_hub.py", output, "--repo_id", "user/adapted", "--results", tmp_path)
    assert run_command(*command, "--to", laid_out).code == 0
    assert "somebody's own text: 60 documents" in (laid_out / "README.md").read_text()
    for file in laid_out.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()
        assert not file.is_file() or str(notes).encode() not in file.read_bytes()
    state = json.loads((output / "training_state.json").read_text())
    assert state["adaptation"]["documents"] == 60


def test_mistakes_are_one_line(run_command, notes, options, exported, tmp_path):
    def adapt(*arguments):
        return refused(run_command("scripts/adapt.py", *arguments, *options, "--output", tmp_path / "adapted"))

    assert "no such file: " in adapt(tmp_path / "nowhere")
    assert "stsb.test.tsv" in adapt(notes, "--data_dir", tmp_path)  # at once, not at the end
    assert "--held_out is 0.9" in adapt(notes, "--held_out", 0.9)
    assert "hardly any text" in adapt(exported)
    same = run_command("scripts/adapt.py", notes, *options, "--output", exported)
    assert "that is the model to adapt" in refused(same)
