"""Prune a trained model: fewer tokens, narrower feed-forward layers; a last stage of training mends the rest.

    python scripts/prune_model.py build/wide --vocabulary 27000 --intermediate_size 768 --output build/pruned

The tokens that the text uses least go; words that had them are then written in pieces. Of each feed-forward layer
those units stay whose share of the output is largest, and what the others contributed is written with them as well
as a linear map can: least squares over the tokens of the text (compare He et al. 2017, "Channel pruning for
accelerating very deep neural networks", arXiv:1707.06168).
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from asterisk.data.pairs import COLUMNS, load_pairs
from asterisk.errors import InputError, run
from asterisk.files import atomic_directory, fingerprint, read_json, write_json
from asterisk.training.pca import PCA_FILE
from asterisk.training.saving import save_sentence_transformer
from modeling_asterisk import AsteriskConfig, AsteriskModel

TEXTS = 4000  # that units are weighed by
RIDGE = 1e-4  # of the mean square of a unit, added to all


def used_tokens(tokenizer: Tokenizer, pairs: Dataset, size: int) -> np.ndarray:
    """Return the ids of the `size` tokens that the text uses most, ascending; ASCII characters are among them."""
    counts = np.zeros(tokenizer.get_vocab_size())
    with tqdm(total=len(pairs), desc="counting tokens", unit=" rows") as progress:
        for batch in pairs.iter(1000):
            texts = [text for column in COLUMNS for text in batch[column] if text is not None]
            ids = np.concatenate([encoding.ids for encoding in tokenizer.encode_batch_fast(texts)])
            counts += np.bincount(ids, minlength=len(counts))
            progress.update(len(batch[COLUMNS[0]]))
    for token, number in tokenizer.get_vocab().items():
        if token.startswith("[") or (token.isascii() and len(token.removeprefix("##")) == 1):
            counts[number] = np.inf
    return np.sort(np.argsort(-counts, kind="stable")[:size])


def keep_tokens(tokenizer: PreTrainedTokenizerFast, kept: np.ndarray) -> PreTrainedTokenizerFast:
    """Return the WordPiece tokenizer with the kept tokens alone, numbered anew."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    new_id = {int(old): new for new, old in enumerate(kept)}
    vocabulary = state["model"]["vocab"]
    state["model"]["vocab"] = {token: new_id[old] for token, old in vocabulary.items() if old in new_id}
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name != "added_tokens_decoder"}
    return type(tokenizer)(**settings | {"tokenizer_object": Tokenizer.from_str(json.dumps(state))})


@torch.inference_mode()
def moments(model: AsteriskModel, texts: list[list[int]]) -> list[Tensor]:
    """Return the second moments of each layer's feed-forward units over the tokens of texts, `[units, units]`."""
    sums = [torch.zeros(model.config.intermediate_size, model.config.intermediate_size) for _ in model.layers]

    def watch(number: int) -> None:
        def add(_module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
            units = inputs[0].flatten(0, 1)
            sums[number].addmm_(units.T, units)

        model.get_submodule(f"layers.{number}.feed_forward_output").register_forward_pre_hook(add)

    for number in range(len(sums)):
        watch(number)
    for ids in tqdm(texts, desc="weighing units", unit=" texts"):
        model(torch.tensor([ids]))
    return sums


def prune(model: AsteriskModel, tokens: np.ndarray, texts: list[list[int]], size: int) -> AsteriskModel:
    """Return the model with the rows of `tokens` in its table and `size` units in its feed-forward layers."""
    state = model.state_dict()
    state["token_embeddings.weight"] = state["token_embeddings.weight"][torch.from_numpy(tokens)]
    for number, moment in enumerate(moments(model, texts)):
        name = f"layers.{number}.feed_forward_output.weight"
        weight = state[name]
        kept = (moment.diagonal() * weight.square().sum(0)).topk(size).indices.sort().values
        square = moment[kept][:, kept] + RIDGE * moment.diagonal().mean() * torch.eye(size)
        state[name] = torch.linalg.solve(square, moment[kept] @ weight.T).T
        for part in ("weight", "bias"):
            state[f"layers.{number}.intermediate.{part}"] = state[f"layers.{number}.intermediate.{part}"][kept]
    settings = model.config.to_dict() | {"vocab_size": len(tokens), "intermediate_size": size}
    pruned = AsteriskModel(AsteriskConfig(**settings))
    pruned.load_state_dict(state)
    return pruned


def main() -> None:
    """Prune a model directory into another."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, help="directory of a model trained here")
    parser.add_argument("--vocabulary", type=int, default=argparse.SUPPRESS, help="tokens to keep; else all")
    parser.add_argument(
        "--intermediate_size", type=int, default=argparse.SUPPRESS, help="feed-forward units to keep; else all"
    )
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs"), help="text to judge by")
    parser.add_argument("--output", type=Path, required=True, help="directory of the pruned model")
    arguments = parser.parse_args()
    state = read_json(arguments.model / "training_state.json")
    if "weights" not in state:
        raise InputError(f"{arguments.model}: no training_state.json here; choose a model trained here")
    model = AsteriskModel.from_pretrained(arguments.model).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.model)
    sizes = {"vocabulary": model.config.vocab_size, "intermediate_size": model.config.intermediate_size}
    for name, has in sizes.items():
        sizes[name] = getattr(arguments, name, has)
        if not 1 <= sizes[name] <= has:
            raise InputError(f"--{name} is {sizes[name]}: the model has {has:,}; give at most so many")
    pairs, _ = load_pairs(arguments.pairs)
    tokens = used_tokens(tokenizer.backend_tokenizer, pairs, sizes["vocabulary"])
    few = pairs.select(range(0, len(pairs), -(-len(pairs) // TEXTS)))["summary"]
    texts = [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(list(few))]
    pruned = prune(model, tokens, texts, sizes["intermediate_size"])
    with atomic_directory(arguments.output) as temporary:
        smaller = keep_tokens(tokenizer, tokens)
        pruned.config.pad_token_id = smaller.pad_token_id
        save_sentence_transformer(pruned, smaller, temporary)
        shutil.copyfile(arguments.model / PCA_FILE, temporary / PCA_FILE)
        state |= {
            "weights": fingerprint(temporary / "model.safetensors"),
            "parameters": pruned.num_parameters(),
        }
        write_json(temporary / "training_state.json", state)
    print(f"{arguments.output}: {len(tokens):,} tokens, {sizes['intermediate_size']:,} units")


if __name__ == "__main__":
    run(main)
