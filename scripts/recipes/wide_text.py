"""Mix text of many fields for the passes after the first -> `data/wide.tsv`, and held-out retrieval sets.

    python scripts/recipes/wide_text.py TEXT_DIRECTORY

A table, `wide_text.tsv` or `longer_text.tsv` beside this file, names the sources with two shares: of the rows that
are taken whole, and of those whose long text is taken as single sentences, so that long and short texts of a field
are both learnt. Every 50th row of a source is held out. Of those with a title or heading and a passage,
`build/held_out/` has retrieval sets in BEIR's layout, which `scripts/evaluate_models.py --data_dir` scores: which
passage is that of the title? Beside them, `rows.tsv` has all held-out rows, for `scripts/benchmarks/search.py`.
"""

import argparse
import csv
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from asterisk.data.sources import Selection, Tally, raw_pairs
from asterisk.errors import InputError, run
from asterisk.files import atomic_directory, atomic_path

SOURCES = Path(__file__).with_suffix(".tsv")
HELD_OUT_EVERY = 50
QUERIES, PASSAGES = 1000, 2500
SETS = {
    "title_abstract": ("arxiv_title_abstract", "arxiv_other_fields", "arxiv_math_title_abstract", "acl_anthology"),
    "heading_paragraph": ("openstax_books",),
}
Pair = tuple[str, str]


def sentences_of(text: str) -> list[str]:
    """Split a text into its sentences; fragments and run-on sentences are left out."""
    return [part for part in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if 25 < len(part) < 400]


def mix(pairs: list[Pair], whole: float, single: float, rng: random.Random) -> Iterator[Pair]:
    """Choose pairs, each whole or as its title with one sentence and perhaps as two sentences of one text."""
    for title, text in pairs:
        chance = rng.random()
        if chance < whole:
            yield title, text
        elif chance < whole + single:
            sentences = sentences_of(text)
            yield title, rng.choice(sentences) if sentences else ""
            if len(sentences) > 2 and rng.random() < 0.4:
                first, second = rng.sample(sentences, 2)
                yield first, second


def write_retrieval_set(held_out: list[Pair], others: list[Pair], directory: Path, rng: random.Random) -> None:
    """Write titles as queries for their passages, among passages of other rows."""
    held_out = rng.sample(held_out, min(QUERIES, len(held_out)))
    passages = [text for _, text in held_out + rng.sample(others, min(PASSAGES - len(held_out), len(others)))]
    with atomic_directory(directory) as temporary:
        for name, texts in (("queries", [title for title, _ in held_out]), ("corpus", passages)):
            lines = [json.dumps({"_id": str(row), "text": text}) for row, text in enumerate(texts)]
            (temporary / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        rows = [f"{row}\t{row}\t1" for row in range(len(held_out))]
        table = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
        (temporary / "qrels.dev.tsv").write_text(table, encoding="utf-8")


def main() -> None:
    """Write the mixture and the retrieval sets."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="directory of the sources")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="the table of sources and shares")
    parser.add_argument("--output", type=Path, default=Path("data/wide.tsv"), help="the mixture")
    parser.add_argument("--held_out", type=Path, default=Path("build/held_out"), help="directory of the sets")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of rows")
    arguments = parser.parse_args()
    with arguments.sources.open(encoding="utf-8", newline="") as stream:
        sources = list(csv.DictReader(stream, delimiter="\t"))
    for source in sources:
        if not (arguments.directory / source["file"]).is_file():
            raise InputError(f"{arguments.directory / source['file']}: no such file")
    rng = random.Random(arguments.seed)
    held_out: dict[str, list[Pair]] = {}
    others: dict[str, list[Pair]] = {}
    lines = ["source\tsummary\tarticle\n"]
    with atomic_path(arguments.output) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("summary\tarticle\n")
        for source in tqdm(sources, desc="sources", unit=" sources"):
            file = str(arguments.directory / source["file"])
            rows = [(a.strip(), b.strip()) for a, b in raw_pairs(file, Selection([file]), Tally())]
            used = [pair for row, pair in enumerate(rows) if row % HELD_OUT_EVERY]
            for title, text in mix(used, float(source["whole"]), float(source["sentences"]), rng):
                stream.write(f"{title}\t{text}\n")
            name = Path(source["file"]).name.split(".")[0]
            held_out[name], others[name] = rows[::HELD_OUT_EVERY], used
            lines += [f"{name}\t{title}\t{text}\n" for title, text in held_out[name]]
    for name, parts in SETS.items():
        pools = [[pair for part in parts for pair in pool[part] if all(pair)] for pool in (held_out, others)]
        write_retrieval_set(pools[0], pools[1], arguments.held_out / name, rng)
    with (
        atomic_path(arguments.held_out / "rows.tsv") as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        stream.writelines(lines)
    print(f"{arguments.output} and {arguments.held_out} written")


if __name__ == "__main__":
    run(main)
