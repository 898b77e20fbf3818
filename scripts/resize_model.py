"""Make room and use it: drop tokens that text hardly uses, widen the feed-forward layers of a trained model.

    python scripts/resize_model.py build/model --vocab_size 27000 --intermediate_size 512 --output build/wider

Merging pieces into words leaves pieces that nothing uses any more. New feed-forward units begin with output
weights of zero, so the model goes on where it was (Chen et al. 2016, "Net2Net", arXiv:1511.05641, with zeros
instead of copies): train it further with `train_accelerate.py --initial_model`.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from asterisk.console import InputError, atomic_directory, fingerprint, read_json, run, write_json
from asterisk.distillation import PCA_FILE
from asterisk.model_directory import save_sentence_transformer
from asterisk.tokenization import first_line
from asterisk.training_data import COLUMNS, load_pairs
from configuration_asterisk import AsteriskConfig
from modeling_asterisk import AsteriskModel


def count_tokens(directory: Path, tokenizer: Tokenizer) -> np.ndarray:
    """Count how often the text pairs in `directory` use each token, `[vocab_size]`."""
    pairs, _ = load_pairs(directory)
    counts = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    tokenizer.no_truncation()
    with tqdm(total=len(pairs), desc="counting tokens", unit=" rows") as progress:
        for batch in pairs.iter(1000):
            texts = [text for column in COLUMNS for text in batch[column] if text is not None]
            ids = [token for encoding in tokenizer.encode_batch_fast(texts) for token in encoding.ids]
            counts += np.bincount(ids, minlength=len(counts))
            progress.update(len(batch[COLUMNS[0]]))
    return counts


def choose_tokens(tokenizer: PreTrainedTokenizerFast, counts: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the ids of the `vocab_size` tokens to keep, ascending.

    Special tokens and single characters are kept, used or not, so that no word becomes unknown; then the most
    used.

    Raises:
        InputError: If those alone are more than `vocab_size`.
    """
    entries = tokenizer.convert_ids_to_tokens(range(len(counts)))
    fixed = [len(entry.removeprefix("##")) == 1 or entry in tokenizer.all_special_tokens for entry in entries]
    if vocab_size < sum(fixed):
        raise InputError(
            f"--vocab_size is {vocab_size}: special tokens and single characters alone are {sum(fixed)}"
        )
    return np.sort(np.lexsort((-counts, ~np.array(fixed)))[:vocab_size])


def prune_tokenizer(tokenizer: PreTrainedTokenizerFast, kept: np.ndarray) -> PreTrainedTokenizerFast:
    """Copy a WordPiece tokenizer with the tokens `kept` only, numbered anew in their order."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    numbers = {entry: i for i, entry in enumerate(tokenizer.convert_ids_to_tokens(kept.tolist()))}
    state["model"]["vocab"] = numbers
    for token in state["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for token in state["post_processor"]["special_tokens"].values():
        token["ids"] = [numbers[entry] for entry in token["tokens"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **tokenizer.special_tokens_map,
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        padding_side=tokenizer.padding_side,
        clean_up_tokenization_spaces=False,
    )


def resize(model: AsteriskModel, kept: np.ndarray, pad_token_id: int, intermediate_size: int) -> AsteriskModel:
    """Copy a model with the rows `kept` of its token table and more feed-forward units, silent at first."""
    changed = {"vocab_size": len(kept), "intermediate_size": intermediate_size, "pad_token_id": pad_token_id}
    resized = AsteriskModel(AsteriskConfig.from_dict(model.config.to_dict() | changed))
    target = resized.state_dict()
    for name, tensor in model.state_dict().items():
        if name == "token_embeddings.weight":
            tensor = tensor[torch.from_numpy(kept)]
        if name.endswith("feed_forward_output.weight"):
            target[name].zero_()
        target[name][tuple(slice(size) for size in tensor.shape)] = tensor
    return resized


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, help="directory of the trained model")
    parser.add_argument("--output", type=Path, required=True, help="directory of the resized model")
    parser.add_argument(
        "--pairs", type=Path, default=Path("data/pairs"), help="text pairs that tell which tokens are used"
    )
    parser.add_argument("--vocab_size", type=int, required=True, help="tokens to keep")
    parser.add_argument("--intermediate_size", type=int, required=True, help="width of the feed-forward layers")
    arguments = parser.parse_args()
    training = read_json(arguments.model / "training_state.json")
    if not training:
        raise InputError(f"{arguments.model}: no training_state.json here; train a model with train_accelerate.py")
    try:
        model = AsteriskModel.from_pretrained(arguments.model)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        raise InputError(f"{arguments.model}: damaged ({first_line(error)})") from error
    config = model.config
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
        raise InputError(f"{arguments.model}: only a WordPiece vocabulary can be made smaller")
    if arguments.vocab_size > config.vocab_size or arguments.intermediate_size < config.intermediate_size:
        raise InputError(
            f"--vocab_size must be at most the model's {config.vocab_size}, "
            f"--intermediate_size at least its {config.intermediate_size}"
        )
    torch.manual_seed(0)  # the new units
    counts = count_tokens(arguments.pairs, Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))
    kept = choose_tokens(tokenizer, counts, arguments.vocab_size)
    pruned = prune_tokenizer(tokenizer, kept)
    resized = resize(model, kept, pruned.pad_token_id, arguments.intermediate_size)
    with atomic_directory(arguments.output) as temporary:
        save_sentence_transformer(resized, pruned, temporary)
        shutil.copyfile(arguments.model / PCA_FILE, temporary / PCA_FILE)
        sizes = {"vocab_size": arguments.vocab_size, "intermediate_size": arguments.intermediate_size}
        weights = fingerprint(temporary / "model.safetensors")
        write_json(temporary / "training_state.json", training | {"weights": weights, "resized": sizes})
    dropped = np.delete(counts, kept)
    print(
        f"{arguments.output}: {resized.num_parameters():,} parameters, {model.num_parameters():,} before; "
        f"{len(dropped):,} tokens dropped, {dropped.sum():,} of {counts.sum():,} uses"
    )


if __name__ == "__main__":
    run(main)
