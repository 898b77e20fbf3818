"""The model directory: files that every version of every loader can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.files import atomic_path, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# What transformers 5 and sentence-transformers 6 write, and the names that the versions before them know, too.
CLASS_NAMES = {
    "tokenizer_config.json": (rb'"TokenizersBackend"', rb'"PreTrainedTokenizerFast"'),
    "modules.json": (rb'"sentence_transformers\.[\w.]+\.(\w+)"', rb'"sentence_transformers.models.\1"'),
}


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Save the tokenizer, its length limit also where loaders without transformers look."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(tokenizer.model_max_length)
    tokenizer.save_pretrained(directory)
    name_classes(directory)


def name_classes(directory: Path) -> None:
    """Name the classes of tokenizer and modules as versions 4 and 5 of transformers both know them."""
    for name, (pattern, replacement) in CLASS_NAMES.items():
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        if (renamed := re.sub(pattern, replacement, content)) != content:
            with atomic_path(path) as temporary:
                temporary.write_bytes(renamed)


def save_sentence_transformer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a SentenceTransformer directory whose files every version and every other server can read.

    Weights are stored in float16, half the download, and load as float32. Rounding them moves a vector by a cosine
    of some 1e-7.
    """
    model.save_pretrained(directory, state_dict={name: t.half() for name, t in model.state_dict().items()})
    save_tokenizer(tokenizer, directory)
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    write_json(
        directory / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(modules)
        ],
    )
    limit = model.config.max_position_embeddings
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    write_json(
        directory / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_json(
        directory / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    )
    (directory / "2_Normalize").mkdir(exist_ok=True)
