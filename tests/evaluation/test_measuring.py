"""What benchmarks share: texts of a given length, and figures from fresh processes."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from asterisk.errors import InputError
from asterisk.evaluation.measuring import (
    SENTENCE,
    energy_counters,
    energy_used,
    run_fresh,
    text_of_tokens,
)


def test_latency_text_has_so_many_tokens():
    words = sorted(set(SENTENCE.split()))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert text_of_tokens(3, tokenizer) == "the old house"
    assert len(text_of_tokens(128, tokenizer).split()) == 128


def test_fresh_process_answers_in_json_or_fails():
    program = "import json, sys; print('noise'); print(json.dumps([json.load(sys.stdin), sys.argv[1:]]))"
    assert run_fresh(["-c", program, "--threads=1"], {"a": 1}) == [{"a": 1}, ["--threads=1"]]
    with pytest.raises(InputError, match=r"^no model here$"):
        run_fresh(["-c", "import sys; print('error: no model here', file=sys.stderr); sys.exit(2)"])
    with pytest.raises(RuntimeError, match="ended with 3"):
        run_fresh(["-c", "import sys; sys.exit(3)"])


def test_energy_of_all_packages_also_where_a_counter_begins_again(tmp_path):
    def write(package, energy, name="package"):
        directory = tmp_path / f"intel-rapl:{package}"
        directory.mkdir(exist_ok=True)
        (directory / "name").write_text(f"{name}-{package}\n")
        (directory / "energy_uj").write_text(f"{energy}\n")
        (directory / "max_energy_range_uj").write_text("9999999\n")

    assert energy_counters(tmp_path) == {}
    write(0, 1_000_000)
    write(1, 9_000_000)
    write(2, 5_000_000, "psys")
    before = energy_counters(tmp_path)
    write(0, 3_000_000)
    write(1, 500_000)
    assert energy_used(before, energy_counters(tmp_path)) == 3.5
