"""Make variants of sentences by rule: sentences -> pairs of a sentence and its variant (TSV).

    python scripts/make_variants.py captions.txt.gz --output build/variants.tsv

asterisk/data/variants.py says which variants there are, and why.
"""

import argparse
import gzip
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from asterisk.data.variants import RECOMBINATIONS, Clause, parse_clause, recombine, vary
from asterisk.errors import InputError, run
from asterisk.files import atomic_path


def read_sentences(path: Path, longest: int) -> Iterator[str]:
    """Read the texts of a file, one a line or several between tabs, that have 4 to `longest` words.

    Raises:
        InputError: If the file cannot be read.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as stream
        ):
            for line in stream:
                for text in line.rstrip("\n").split("\t"):
                    if 4 <= len(text.split()) <= longest:
                        yield text
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def main() -> None:
    """Write the variants of the sentences of all files."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("texts", nargs="+", type=Path, metavar="FILE", help="sentences: .txt or .tsv, also .gz")
    parser.add_argument("--output", type=Path, default=Path("build/variants.tsv"), help="file of pairs to write")
    parser.add_argument("--longest", type=int, default=16, help="words in a sentence, at most")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of rules")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    written = 0
    clauses: list[Clause] = []
    with atomic_path(arguments.output) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("sentence\tvariant\n")
        for path in arguments.texts:
            for sentence in tqdm(read_sentences(path, arguments.longest), desc=path.name, unit=" sentences"):
                if variant := vary(sentence, rng):
                    stream.write(f"{sentence}\t{variant}\n")
                    written += 1
                if clause := parse_clause(sentence):
                    clauses.append(clause)
        for _ in tqdm(range(RECOMBINATIONS * len(clauses)), desc="recombining", unit=" pairs"):
            first, second = recombine(clauses, rng)
            if first != second:
                stream.write(f"{first}\t{second}\n")
                written += 1
    print(f"{arguments.output}: {written:,} pairs")


if __name__ == "__main__":
    run(main)
