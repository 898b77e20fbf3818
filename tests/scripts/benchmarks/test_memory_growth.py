"""The benchmark of memory: the most that a command has had, even if it has let go of it, and rows to feed it."""

import sys

import pytest
from conftest import load_script
from datasets import load_from_disk


@pytest.fixture(scope="module")
def memory_growth():
    return load_script("scripts/benchmarks/memory_growth.py")


HOLDING = """
import pathlib, signal, sys
signal.alarm(100)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
block = b"x" * int(sys.argv[1])
del block
pathlib.Path(sys.argv[2]).touch()
signal.pause()
"""


def test_peak_memory_is_that_of_the_child(memory_growth, tmp_path):
    def peak(size):
        path, seen = tmp_path / str(size), []

        def stop():  # once the memory has surely been read after the file was there
            seen.append(path.exists())
            return seen.count(True) > 1

        return memory_growth.peak_megabytes([sys.executable, "-c", HOLDING, str(size), str(path)], stop)

    assert peak(200_000_000) - peak(0) == pytest.approx(200, rel=0.1)


def test_child_that_fails_says_why(memory_growth):
    program = "import sys; print('oh', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match="ended with 3: oh"):
        memory_growth.peak_megabytes([sys.executable, "-c", program])


def test_rows_are_repeated_without_duplicates(memory_growth, pairs, tmp_path):
    memory_growth.write_rows(load_from_disk(str(pairs)), 500, tmp_path / "rows.tsv")
    lines = (tmp_path / "rows.tsv").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 501
    assert all(line.count("\t") == 1 for line in lines)
