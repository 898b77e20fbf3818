"""Every command says what it takes, and spells its options with underscores."""

import re

import pytest
from conftest import ROOT

COMMANDS = sorted(
    path.relative_to(ROOT).as_posix()
    for place in ("", "scripts/", "scripts/benchmarks/")
    for path in ROOT.glob(f"{place}*.py")
)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.endswith("_asterisk.py")])
def test_help(run_command, command):
    result = run_command(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("usage: ")
    if command != "train_accelerate.py":  # transformers adds the other spelling
        assert not re.search(r"--[a-z]+-[a-z]", result.out)
