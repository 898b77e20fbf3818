"""Tokenizers: one from the Hub or a directory, or one trained on the text.

Whatever its origin, a tokenizer leaves here with one special token appended to every text, so that the
empty text has a vector too, with right padding, and with a length limit that every loader respects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from asterisk.errors import InputError, first_line
from asterisk.hub import find_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[SEP]"


def train_tokenizer(kind: str, vocab_size: int, texts: Iterable[str], lowercase: bool) -> Tokenizer:
    """Train a `wordpiece` or byte-level `bpe` vocabulary of `vocab_size` entries on `texts`."""
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    special_tokens = [PAD, UNKNOWN, END]
    if kind == "wordpiece":
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(normalizer.normalize_str(text))
        alphabet = sorted(c for c, _ in counts.most_common(1000) if not c.isspace())
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        # The trainer numbers the continuing characters in an order that differs from run to run, and breaks ties
        # by number. Given as special tokens they are numbered first, in the order given.
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=special_tokens + [f"##{character}" for character in alphabet],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special_tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "wordpiece":  # the same vocabulary, with only the special tokens special
        vocabulary = tokenizer.get_vocab()
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.add_special_tokens(special_tokens)
    return tokenizer


def build_tokenizer(
    name: str, texts: Iterable[str], max_position_embeddings: int, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """Make the tokenizer that `name` asks for.

    Args:
        name: `wordpiece:SIZE` or `bpe:SIZE` to train one on `texts`, else a Hub id or a directory.
        texts: Training text, read only if a vocabulary is to be trained.
        max_position_embeddings: Longest sequence the model takes, in tokens.
        lowercase: Whether a vocabulary trained here ignores case.

    Raises:
        InputError: If the size is not a number, or the Hub id or directory cannot be loaded.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind, _, size = name.partition(":")
    if kind in ("wordpiece", "bpe"):
        if not size.isdecimal() or int(size) < 300:
            raise InputError(f"tokenizer {name!r}: write {kind}:SIZE with a SIZE of 300 or more")
        backend = train_tokenizer(kind, int(size), texts, lowercase)
        pad, unknown, end = PAD, UNKNOWN, END
    else:
        directory = find_model(name, ("*.json", "*.txt"))
        try:
            source = AutoTokenizer.from_pretrained(directory, use_fast=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: no tokenizer that transformers can load ({first_line(error)})") from error
        backend = Tokenizer.from_str(source.backend_tokenizer.to_str())
        pad, unknown = source.pad_token or PAD, source.unk_token
        end = source.sep_token or source.eos_token or END
        backend.add_special_tokens([pad, end])
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}",
        pair=f"$A {end} $B:1 {end}:1",
        special_tokens=[(end, backend.token_to_id(end))],
    )
    backend.no_padding()
    backend.enable_truncation(max_position_embeddings)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unknown,
        sep_token=end,
        model_max_length=max_position_embeddings,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def token_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return each vocabulary entry as the text it stands for, in the order of token ids."""
    backend = tokenizer.backend_tokenizer
    decoded = (backend.decode([i], skip_special_tokens=False) for i in range(len(tokenizer)))
    return [text.removeprefix("##").strip() for text in decoded]
