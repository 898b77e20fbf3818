"""make_variants: pairs of a sentence and its variant, the same in every run."""

import gzip


def test_pairs_are_written_and_the_same_again(run_command, tmp_path):
    lines = ["A man is playing a guitar.", "too short", "word " * 30, "A dog runs\tThe cat is not on the mat"]
    with gzip.open(tmp_path / "texts.tsv.gz", "wt") as stream:
        stream.write("\n".join(lines))
    outputs = [tmp_path / "first.tsv", tmp_path / "second.tsv"]
    for output in outputs:
        assert run_command("scripts/make_variants.py", tmp_path / "texts.tsv.gz", "--output", output).code == 0
    header, *rows = outputs[0].read_text().splitlines()
    assert header == "sentence\tvariant"
    assert [row.split("\t")[0] for row in rows[:2]] == ["A man is playing a guitar.", "The cat is not on the mat"]
    assert all(len(set(row.split("\t"))) == 2 for row in rows)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_unreadable_text_is_one_line(run_command, tmp_path):
    (tmp_path / "texts.txt.gz").write_bytes(b"not gzip")
    for name in ("texts.txt.gz", "absent.txt"):
        result = run_command("scripts/make_variants.py", tmp_path / name, "--output", tmp_path / "out.tsv")
        assert (result.code, result.err.count("error: ")) == (2, 1)
        assert name in result.err
    assert not (tmp_path / "out.tsv").exists()
