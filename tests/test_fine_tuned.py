"""Other people's copies of the released model: fine-tuned, saved again, moved between versions."""

import copy
import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from conftest import ROOT, refused
from tokenizers import Tokenizer

from asterisk import AsteriskEncoder

RELEASE = ROOT / "release" / "asterisk"
TEXTS = ["a heron waits by the water", "rain on the roof", ""]


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """The released model after a few steps of sentence-transformers' trainer, as it saves it."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(RELEASE), trust_remote_code=True, device="cpu")
    pairs = [("a heron waits", "a bird by the water"), ("rain on the roof", "a wet house")] * 8
    directory = tmp_path_factory.mktemp("fine_tuned")
    trainer = SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(
            output_dir=str(directory / "run"),
            max_steps=2,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_dict(dict(zip(("anchor", "positive"), zip(*pairs, strict=True), strict=True))),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.train()
    model.save(str(directory / "model"))
    return directory / "model"


@pytest.fixture(scope="module")
def exported(fine_tuned, export):
    result = export(fine_tuned)
    assert result.code == 0, result.err
    return fine_tuned


def test_a_fine_tuned_copy_is_exported(exported):
    from sentence_transformers import SentenceTransformer

    assert {path.name for path in (exported / "onnx").glob("*.onnx")} == {"model.onnx", "model_quantized.onnx"}
    expected = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu").encode(TEXTS)
    assert (expected * AsteriskEncoder(str(RELEASE)).encode(TEXTS)).sum(1).min() < 0.999, "training changed it"
    assert (expected * AsteriskEncoder(str(exported), "onnx/model.onnx").encode(TEXTS)).sum(1).min() > 0.99999
    assert (expected * AsteriskEncoder(str(exported)).encode(TEXTS)).sum(1).min() > 0.99


def test_weights_in_float32_on_request(fine_tuned, export, tmp_path):
    model = shutil.copytree(fine_tuned, tmp_path / "model")
    assert export(model, "--float32").code == 0
    assert (model / "onnx" / "model.onnx").stat().st_size > (model / "model.safetensors").stat().st_size


def test_tokenizer_class_of_transformers_5_is_understood(fine_tuned, export, tmp_path):
    model = shutil.copytree(fine_tuned, tmp_path / "model")
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "TokenizersBackend"}))
    result = export(model)
    assert result.code == 0, result.err
    assert json.loads(path.read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_what_cannot_be_loaded_is_not_called_damaged(fine_tuned, export, tmp_path):
    model = shutil.copytree(fine_tuned, tmp_path / "model")
    (model / "tokenizer.json").unlink()
    message = refused(export(model))
    assert str(model) in message
    assert "delete" not in message


def test_the_limit_is_that_of_the_model(tmp_path):
    model = shutil.copytree(RELEASE, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = "long text " * 400
    expected = AsteriskEncoder(str(RELEASE)).encode(text)
    for change in (tokenizer.no_truncation, lambda: tokenizer.enable_truncation(8)):
        change()
        tokenizer.save(str(model / "tokenizer.json"))
        assert np.array_equal(AsteriskEncoder(str(model)).encode(text), expected)


def test_stale_onnx_file_is_named(exported, tmp_path):
    model = shutil.copytree(exported, tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AsteriskEncoder(str(model))
        (model / "model.safetensors").touch()
        AsteriskEncoder(str(model))
    shutil.copyfile(RELEASE / "model.safetensors", model / "model.safetensors")
    with pytest.warns(UserWarning, match=r"model_quantized\.onnx was exported from other weights"):
        AsteriskEncoder(str(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_an_encoder_can_be_sent_to_other_processes(copied):
    encoder = AsteriskEncoder(str(RELEASE), "onnx/model.onnx", threads=1)
    assert np.array_equal(copied(encoder).encode(TEXTS), encoder.encode(TEXTS))


def test_an_empty_batch_has_no_vectors(exported):
    import onnxruntime

    empty = np.zeros((0, 5), dtype=np.int64)
    for name in ("model.onnx", "model_quantized.onnx"):
        session = onnxruntime.InferenceSession(exported / "onnx" / name)
        found = session.run(["sentence_embedding"], {"input_ids": empty, "attention_mask": empty})
        assert found[0].shape == (0, 256)


def test_optimum_and_sentence_transformers_export_it(fine_tuned, tmp_path):
    from sentence_transformers import SentenceTransformer

    import asterisk.export.fp32  # noqa: F401  it registers the architecture

    model = shutil.copytree(fine_tuned, tmp_path / "model", ignore=shutil.ignore_patterns("onnx"))
    expected = SentenceTransformer(str(model), trust_remote_code=True, device="cpu").encode(TEXTS)
    exporting = SentenceTransformer(str(model), backend="onnx", trust_remote_code=True, device="cpu")
    assert (exporting.encode(TEXTS) * expected).sum(1).min() > 0.99999


def test_assembled_by_hand_it_has_its_true_width():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    options = {"trust_remote_code": True}
    transformer = Transformer(str(RELEASE), model_kwargs=options, config_kwargs=options)
    model = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu"
    )
    assert model.get_embedding_dimension() == model.encode("a heron").shape[0] == 256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    from transformers import AutoTokenizer

    from modeling_asterisk import AsteriskModel

    texts = ["stock market prices fell sharply on tuesday " * 100, *TEXTS]
    tokenizer = AutoTokenizer.from_pretrained(RELEASE)
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    inputs["attention_mask"][-1] = 0
    with torch.no_grad():
        full, half = (
            AsteriskModel.from_pretrained(RELEASE, dtype=kind).eval()(**inputs).sentence_embedding.float()
            for kind in (torch.float32, dtype)
        )
    assert torch.equal(half[-1], torch.zeros(256))
    assert (half * full).sum(1)[:-1].min() > 0.999


def test_it_is_pushed_with_a_card_of_what_is_known(exported, run_command, tmp_path):
    model = shutil.copytree(exported, tmp_path / "model")
    shutil.copyfile(RELEASE / "training_state.json", model / "training_state.json")  # of other weights
    options = ("--repo_id", "someone/birds", "--results", ROOT / "results", "--to", tmp_path / "out")
    result = run_command("scripts/push_to_hub.py", model, *options)
    assert result.code == 0, result.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# birds" in card
    assert "Not measured." in card
    for absent in ("## Training", "## Speed", "Distilled from", "STSBenchmark,", "None"):
        assert absent not in card


def test_unknown_keywords_are_refused():
    from modeling_asterisk import AsteriskConfig, AsteriskModel

    model = AsteriskModel(AsteriskConfig(vocab_size=10, encoder_hidden_size=8, hidden_size=4)).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(ids, token_type_ids=ids)[1], model(ids)[1])
    with pytest.raises(TypeError, match="attention_msk"):
        model(ids, attention_msk=ids)
