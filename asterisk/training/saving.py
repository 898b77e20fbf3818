"""The model directory: files that every version of every loader can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Save the tokenizer, its length limit also where loaders without transformers look."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(tokenizer.model_max_length)
    tokenizer.save_pretrained(directory)
    name_tokenizer_class(directory)


def name_tokenizer_class(directory: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it; 5 saves a name that 4 does not know."""
    path = directory / "tokenizer_config.json"
    config = read_json(path)
    if config.get("tokenizer_class") == "TokenizersBackend":
        write_json(path, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


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
