"""Write what the present release writes, small: `tests/golden/VERSION`, which later code must open or refuse.

    python scripts/hardening/make_golden.py

Run it when a format changes; `tests/test_golden.py` opens the directories of all versions.
"""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch

from asterisk import AsteriskEncoder
from asterisk.dedupe import Deduplicator, Item
from asterisk.embed import Job, embed_locally
from asterisk.errors import run
from asterisk.export.calibration import build_int8
from asterisk.files import atomic_directory, write_json
from asterisk.search import Index
from asterisk.training.saving import save_sentence_transformer
from asterisk.training.tokenization import build_tokenizer
from modeling_asterisk import AsteriskConfig, AsteriskModel

NOTES = {
    "boiler.md": "---\ntags: [house]\n---\n# Boiler\n\nWith the heating cold, add water until one bar.\n",
    "bread.txt": "Feed the starter in the evening. Bake at 230 degrees.\n",
}
TEXTS = [*NOTES.values(), "Quake hits Lisbon", "Lisbon hit by a quake", "Cup final drawn"]


def make_model(directory: Path) -> None:
    """Write a model with random weights, some thousand of them, in every form that is part of a release."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer("wordpiece:300", TEXTS * 4, 64)
    config = AsteriskConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        encoder_hidden_size=16,
        embedding_size=8,
        intermediate_size=16,
        hidden_size=8,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = AsteriskModel(config).eval()
    save_sentence_transformer(model, tokenizer, directory)
    (directory / "onnx").mkdir()
    onnx.save(build_int8(model, tokenizer(TEXTS)["input_ids"]), directory / "onnx" / "model_quantized.onnx")
    write_json(directory / "onnx" / "export_state.json", {"recipe": {}, "files": {}})


def main() -> None:
    """Write the directory."""
    target = Path("tests/golden") / version("asterisk-embedding")
    with atomic_directory(target) as golden, tempfile.TemporaryDirectory() as scratch:
        make_model(golden / "model")
        model = str(golden / "model")
        encoder = AsteriskEncoder(model)
        np.save(golden / "vectors.npy", encoder.encode(TEXTS))
        write_json(golden / "texts.json", {"texts": TEXTS})
        notes = Path(scratch) / "notes"
        notes.mkdir()
        for name, text in NOTES.items():
            (notes / name).write_text(text, encoding="utf-8")
        with Index(Path(scratch) / "index.sqlite", model) as index:
            index.index(notes)
        shutil.copy(Path(scratch) / "index.sqlite", golden)
        with Deduplicator(encoder, golden / "state.sqlite") as deduplicator:
            deduplicator.add(Item(title, published=1e9) for title in TEXTS[2:4])
            deduplicator.stories()
            deduplicator.keep()
        rows = golden / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
        embed_locally(Job([str(rows)], golden / "embedded", model), workers=1)
    print(f"{target} written")


if __name__ == "__main__":
    run(main)
