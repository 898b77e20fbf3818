"""`--engine ray` on a Ray of this machine: the same rows as the local engine, also when a process is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import RELEASE, ROOT, invent_pairs

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
import psutil  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from asterisk.embed import embed_locally, make_job, ray_data  # noqa: E402
from asterisk.errors import InputError  # noqa: E402

pytestmark = pytest.mark.slow

ROWS = 2400
TEXTS = [" ".join([pair["summary"]] * 4) for pair in invent_pairs(ROWS, seed=5)]
PROGRAM = """
import sys
from pathlib import Path
from asterisk.embed import make_job, ray_data
ray_data.BLOCK_BYTES = 40_000
job = make_job(["many.parquet"], Path("vectors"), sys.argv[1], id_columns=["key"], rows_per_file=200)
ray_data.embed_on_ray(job, workers=2)
"""


@pytest.fixture(scope="module")
def cluster():
    """A Ray of this machine with two workers, shared by the tests."""
    ray.init(num_cpus=4, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with many rows, as the current one; blocks are so small that there are many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_data, "BLOCK_BYTES", 40_000)
    table = pa.table({"key": [f"k{i:05}" for i in range(ROWS)], "text": TEXTS})
    pq.write_table(table, "many.parquet", row_group_size=800)
    return tmp_path


def job(place, source="many.parquet", output="vectors", **settings):
    return make_job(
        [source], place / output, str(RELEASE), **{"id_columns": ["key"], "rows_per_file": 200} | settings
    )


def is_complete(directory):
    table = pq.read_table(directory).sort_by("key")
    manifest = json.loads((directory / "_manifest.json").read_text())
    assert table["key"].to_pylist() == [f"k{i:05}" for i in range(ROWS)]
    assert table["embedding"].null_count == 0
    assert (manifest["rows_in"], manifest["rows_out"]) == (ROWS, ROWS)
    assert max(manifest["files"].values()) <= 200
    assert not (directory / ray_data.CHECKPOINT).exists()
    return table


def test_killed_encoder_leaves_no_gap_and_nothing_twice(cluster, place):
    killed = []

    def kill_one():
        while not killed:
            names = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
            found = [
                pid for pid, name in names.items() if name and name[0].startswith("ray::MapWorker(MapBatches(Enc")
            ]
            if found and list((place / "vectors").glob("*.parquet")):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.05)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    manifest = ray_data.embed_on_ray(job(place), workers=2)
    assert killed
    table = is_complete(place / "vectors")
    assert ray_data.embed_on_ray(job(place), workers=2) == manifest, "up to date"
    embed_locally(job(place, output="local"), workers=2)
    local = pq.read_table(place / "local")
    assert table.schema.equals(local.schema, check_metadata=False)
    ours, theirs = (np.stack(rows["embedding"].to_numpy()).astype(np.float32) for rows in (table, local))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_killed_driver_goes_on_at_its_checkpoint(place):
    command = [sys.executable, "-c", PROGRAM, str(RELEASE)]
    options = {"cwd": place, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "stderr": subprocess.PIPE}
    run = subprocess.Popen(command, **options | {"stderr": subprocess.DEVNULL})
    committed = place / "vectors" / ray_data.CHECKPOINT
    while not [path for path in committed.glob("*.parquet") if ".pending" not in path.name]:
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = sum(pq.read_metadata(path).num_rows for path in committed.glob("*.parquet"))
    assert 0 < before < ROWS
    done = subprocess.run(command, check=False, timeout=240, **options)
    assert done.returncode == 0, done.stderr.decode()
    is_complete(place / "vectors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.with_name("again.parquet").write_bytes(file.read_bytes()), "more than once"),
        (lambda file: file.unlink(), "the output is not complete"),
    ],
)
def test_rows_lost_or_twice_are_noticed(cluster, place, monkeypatch, change, message):
    pq.write_table(pq.read_table("many.parquet").slice(0, 40), "few.parquet")
    write = ray_data.write

    def wrong(job, workers):
        write(job, workers)
        change(next(job.output.glob("*.parquet")))

    monkeypatch.setattr(ray_data, "write", wrong)
    with pytest.raises(RuntimeError, match=message):
        ray_data.embed_on_ray(job(place, "few.parquet"), workers=1)


@pytest.mark.parametrize("policy", ["null", "skip"])
def test_malformed_rows_of_compressed_lines(cluster, place, capfd, policy):
    lines = [json.dumps({"key": f"k{i}", "text": text}) for i, text in enumerate(TEXTS[:30])]
    with pa.output_stream("a.jsonl.gz", compression="gzip") as stream:
        stream.write("\n".join([*lines, "not json", '{"key": "x", "text": 3}']).encode())
    manifest = ray_data.embed_on_ray(job(place, "a.jsonl.gz", on_error=policy, id_columns=[]), workers=1)
    assert (manifest["rows_in"], manifest["malformed"]) == (32, 2)
    table = pq.read_table(place / "vectors")
    assert (len(table), table["embedding"].null_count) == ((32, 2) if policy == "null" else (30, 0))
    assert set(table["id"].to_pylist()) == {f"a.jsonl.gz:{line}" for line in range(1, len(table) + 1)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id_columns": []}, "choose a column of ids"),
        ({"column": "body"}, "no column 'body'"),
        ({"id_columns": ["empty"]}, "a row has no empty"),
        ({"source": "a.csv"}, "a.csv line 1: no header"),
    ],
)
def test_refused(cluster, place, settings, message):
    pq.write_table(pa.table({"key": ["a"], "text": ["b"], "empty": pa.nulls(1, pa.string())}), "a.parquet")
    (place / "a.csv").touch()
    with pytest.raises(InputError, match=message):
        ray_data.embed_on_ray(job(place, **{"source": "a.parquet"} | settings), workers=1)
