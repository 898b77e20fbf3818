"""Tokenizers: trained ones and GPT-2's kind end every text with one special token, and stop at 512."""

import pytest
from conftest import invent_pairs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2TokenizerFast

from asterisk.errors import InputError
from asterisk.training.saving import save_tokenizer
from asterisk.training.tokenization import build_tokenizer, token_texts

TEXTS = [text for pair in invent_pairs(200) for text in pair.values() if text]
LONG = "the otter measured the harbour " * 200


@pytest.fixture(scope="module")
def gpt2_like(tmp_path_factory):
    """A directory like openai-community/gpt2: byte-level BPE, one special token, no padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    directory = tmp_path_factory.mktemp("gpt2")
    GPT2TokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module", params=["wordpiece:300", "bpe:400", "gpt2"])
def tokenizer(request, gpt2_like, tmp_path_factory):
    """A tokenizer as it is after saving and loading."""
    name = gpt2_like if request.param == "gpt2" else request.param
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(build_tokenizer(name, TEXTS, 512), directory)
    return AutoTokenizer.from_pretrained(directory)


def test_one_special_token_ends_every_text(tokenizer):
    plain = tokenizer("A heron, 12 geese: ünïcödé 🐢", add_special_tokens=False)["input_ids"]
    assert tokenizer.sep_token_id not in plain
    assert tokenizer("A heron, 12 geese: ünïcödé 🐢")["input_ids"] == [*plain, tokenizer.sep_token_id]
    assert tokenizer("")["input_ids"] == [tokenizer.sep_token_id]


def test_known_words_survive(tokenizer):
    ids = tokenizer("the lynx repaired the clock at noon")["input_ids"]
    assert tokenizer.unk_token_id not in ids[:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "the lynx repaired the clock at noon"


def test_truncation_keeps_the_special_token(tokenizer):
    assert len(tokenizer(LONG)["input_ids"]) > 512
    ids = tokenizer(LONG, truncation=True)["input_ids"]
    assert len(ids) == 512
    assert ids[-1] == tokenizer.sep_token_id


def test_pads_on_the_right(tokenizer):
    batch = tokenizer(["the raven", "the raven hid the ladder"], padding=True)
    assert sorted(batch) == ["attention_mask", "input_ids"]
    short = tokenizer("the raven")["input_ids"]
    fill = len(batch["input_ids"][1]) - len(short)
    assert tokenizer.pad_token_id not in short
    assert batch["input_ids"][0] == short + [tokenizer.pad_token_id] * fill
    assert batch["attention_mask"][0] == [1] * len(short) + [0] * fill


def test_saved_file_truncates_in_every_loader(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(LONG).ids
    assert len(ids) == 512
    assert ids[-1] == tokenizer.sep_token_id


def test_gpt2_like_keeps_its_vocabulary_and_gains_padding(gpt2_like):
    source, built = AutoTokenizer.from_pretrained(gpt2_like), build_tokenizer(gpt2_like, iter([]), 512)
    text = "The tortoise forgot the tower."
    assert built(text)["input_ids"] == [*source(text)["input_ids"], source.eos_token_id]
    assert built.pad_token_id == len(source) == len(built) - 1


@pytest.mark.parametrize(("name", "size"), [("wordpiece:300", 300), ("bpe:400", 400)])
def test_training_is_deterministic(name, size):
    first, second = (build_tokenizer(name, TEXTS, 512) for _ in range(2))
    assert len(first) == size
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_lowercase_is_a_choice(kind):
    ignoring, keeping = (build_tokenizer(f"{kind}:400", TEXTS, 512, lowercase) for lowercase in (True, False))
    assert ignoring("Near the Old")["input_ids"] == ignoring("near the old")["input_ids"]
    assert keeping("Near the Old")["input_ids"] != keeping("near the old")["input_ids"]


def test_token_texts_are_what_tokens_stand_for():
    tokenizer = build_tokenizer("wordpiece:300", TEXTS, 512)
    entries = token_texts(tokenizer)
    assert entries[tokenizer.convert_tokens_to_ids("heron")] == "heron"
    continuation = next(token for token in tokenizer.get_vocab() if token.startswith("##") and len(token) > 3)
    assert entries[tokenizer.convert_tokens_to_ids(continuation)] == continuation[2:]


@pytest.mark.parametrize("name", ["wordpiece:many", "bpe:", "wordpiece:-5", "bpe:100"])
def test_bad_size(name):
    with pytest.raises(InputError, match=f"{name}.*SIZE of 300 or more"):
        build_tokenizer(name, TEXTS, 512)


def test_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(InputError, match="no tokenizer that transformers can load"):
        build_tokenizer(str(tmp_path), TEXTS, 512)
