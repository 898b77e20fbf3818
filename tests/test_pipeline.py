"""The whole pipeline in miniature, as a user types it, with the default paths."""

import pytest
from conftest import MINIATURE, ROOT, invent_pairs


@pytest.mark.slow
def test_pipeline(python, teacher, tmp_path):
    def step(script, *arguments):
        result = python(ROOT / script, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return result

    too_early = python(ROOT / "train_accelerate.py", cwd=tmp_path)
    assert too_early.returncode == 2
    assert too_early.stderr == "error: data/pairs: no text pairs here; run scripts/prepare_data.py\n"

    lines = ["headline\tbody", *(f"{pair['summary']}\t{pair['article'] or ''}" for pair in invent_pairs(120))]
    (tmp_path / "news.tsv").write_text("\n".join(lines) + "\n")
    step("scripts/prepare_data.py", "--dataset", "news.tsv")
    step("scripts/precompute_teacher.py", "--teacher_model", teacher)
    trained = step("train_accelerate.py", *MINIATURE)
    assert "108 training pairs, 12 held out" in trained.stdout
    exported = step("export_optimum.py", "--calibration_texts", 32, "--verification_texts", 32)
    assert exported.stdout.count(".onnx: ") == 5

    program = """
from asterisk import AsteriskEncoder
encoder = AsteriskEncoder("build/model")
texts = ["the heron painted the bridge at dawn", "the heron painted the bridge at noon", "a mole hid it"]
first, near, far = encoder.encode(texts)
assert first @ near > first @ far, (first @ near, first @ far)
"""
    result = python("-c", program, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
