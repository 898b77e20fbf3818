"""Text files in other encodings than UTF-8."""

import gzip

import pytest
from conftest import refused
from datasets import load_from_disk

TEXT = "summary\tarticle\nzwölf Reiher warten\tam Ufer des Sees\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_byte_order_mark_names_the_encoding(run_command, tmp_path, encoding, suffix):
    path = tmp_path / f"pairs{suffix}"
    data = TEXT.encode(encoding)
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    result = run_command("scripts/prepare_data.py", "--dataset", path, "--output", tmp_path / "pairs")
    assert result.code == 0, result.err
    assert load_from_disk(str(tmp_path / "pairs"))[0]["summary"] == "zwölf Reiher warten"


def test_text_that_is_not_what_its_mark_says(run_command, tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(TEXT.encode("utf-16")[:-1])
    message = refused(run_command("scripts/prepare_data.py", "--dataset", path, "--output", tmp_path / "pairs"))
    assert f"{path}: not utf-16" in message
