"""Rank one's own texts by similarity to a query: those of a file, of stdin, of the training pairs, or of README.

python scripts/demo.py --query "how do I read a file line by line" --file notes.txt
cat notes.txt | python scripts/demo.py --file -
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from asterisk import AsteriskEncoder
from asterisk.errors import InputError, run

ROOT = Path(__file__).parent.parent
README, RELEASE, PAIRS = ROOT / "README.md", ROOT / "release" / "asterisk", Path("data/pairs")
SHOWN = 100  # characters of a text
QUESTIONS = ["does it run without PyTorch?", "how was it trained?", "what does it say of quantisation?"]


def read_texts(name: str) -> list[str]:
    """Read one text a line from a file, or from stdin for `-`; blank lines are skipped.

    Raises:
        InputError: If the file is missing or not UTF-8, or there is no text in it.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name} line {row}: not UTF-8; save the file as UTF-8") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise InputError(f"{name}: no text in it; write one text a line")
    return texts


def rank(query: np.ndarray, vectors: np.ndarray, top: int) -> list[tuple[float, int]]:
    """Return (cosine, row) of the `top` rows of unit vectors `[n, dim]` nearest to the unit vector `query`."""
    cosines = vectors @ query
    return [(float(cosines[row]), int(row)) for row in np.argsort(-cosines, kind="stable")[:top]]


def main() -> None:
    """Choose texts and queries, embed both, and print the nearest texts of each query."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default=str(RELEASE), help="model directory or Hub id")
    parser.add_argument("--query", action="append", help="text to look for; may be given several times")
    parser.add_argument("--file", help="one text a line, - for stdin; without it, --pairs or README is ranked")
    parser.add_argument("--pairs", type=Path, help=f"text pairs to rank without --file: {PAIRS}, if it is there")
    parser.add_argument("--top", type=int, default=3, help="texts to show for each query")
    arguments = parser.parse_args()

    if arguments.top < 1:
        raise InputError(f"--top is {arguments.top}: it must be 1 or more")
    queries = arguments.query
    for query in queries or []:
        if not query.strip():
            raise InputError("--query is empty: give it the text to look for")
        if re.search("[\ud800-\udfff]", query):  # what the shell passed could not be decoded
            raise InputError("--query is not UTF-8: set the terminal to UTF-8")
    if arguments.file is not None:
        texts = read_texts(arguments.file)
        queries = queries or texts[:1]
    elif not arguments.pairs and not PAIRS.exists():
        paragraphs = README.read_text(encoding="utf-8").split("\n\n")
        prose = re.compile(r"`?\w")
        texts = [" ".join(text.split()) for text in paragraphs if prose.match(text)]
        queries = queries or QUESTIONS
    else:
        from asterisk.data.pairs import load_pairs  # needs more packages than the rest

        pairs, _ = load_pairs(arguments.pairs or PAIRS)
        texts = [text for text in pairs[:1000]["article"] if text]
        queries = queries or pairs[:3]["summary"]
    encode = AsteriskEncoder(arguments.model).encode
    vectors = encode(texts, show_progress_bar=len(texts) > 1000)
    for query in queries:
        print(f"\n{query[:SHOWN]}")
        for cosine, row in rank(encode([query])[0], vectors, arguments.top):
            print(f"  {cosine:.3f}  {texts[row][:SHOWN]}")


if __name__ == "__main__":
    run(main)
