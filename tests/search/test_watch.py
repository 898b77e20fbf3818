"""`asterisk index --watch` keeps the index up to date while files change."""

import os
import signal
import subprocess
import sys
import time

import pytest
from search_files import names

PATIENCE = 90  # seconds; a busy machine takes a few


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_changes_are_found_while_the_command_runs(index, vault):
    index.index(vault)  # the index is there, with its tables, before two programs use it
    command = [sys.executable, "-m", "asterisk.cli", "index", "--watch", "--threads", "1", "--index", index.path]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **options) as process:
        assert process.stdout.readline().startswith("4 unchanged")
        assert process.stdout.readline().startswith("watching 1 ")
        try:
            (vault / "new.md").write_text("Sharpen the scythe before the harvest.")
            wait_for(lambda: names(index.search("scythe", mode="words")) == ["new.md"])
            (vault / "Trip.md").unlink()
            wait_for(lambda: not index.search("Vienna", mode="words"))
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
