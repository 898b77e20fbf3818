"""Each part of the package needs no more than its extra installs; the runtime only the base dependencies."""

from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def run(python):
    def call(program):
        result = python("-c", f"from only_extra import import_modules\n{program}", cwd=Path(__file__).parent)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return call


def test_runtime_needs_the_base_dependencies_alone(run):
    program = f"""
import_modules("", "asterisk")
from asterisk import AsteriskEncoder
print(AsteriskEncoder({str(ROOT / "release" / "asterisk")!r}).encode(["a heron waits", "rain on the roof"]).shape)
"""
    assert run(program) == "(2, 256)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("train", ("asterisk.data", "asterisk.training", "train_accelerate")),
        ("export", ("asterisk.export", "export_optimum")),
        ("evaluate", ("asterisk.evaluation",)),
        ("search", ("asterisk.search",)),
        # Not `ray`: it carries a psutil of its own, which the test would hide.
        ("embed", ("asterisk.embed.local", "asterisk.embed.hub_dataset")),
    ],
)
def test_extra_is_enough(run, extra, modules):
    run(f"import_modules({extra!r}, *{modules!r})")
