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
from copies import PAIRS, fine_tune, train
from tokenizers import Tokenizer

from asterisk import AsteriskEncoder

RELEASE = ROOT / "release" / "asterisk"
TEXTS = ["a heron waits by the water", "rain on the roof", ""]


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """The released model after a few steps of sentence-transformers' trainer, as it saves it."""
    directory = tmp_path_factory.mktemp("fine_tuned") / "model"
    fine_tune(RELEASE, directory)
    return directory


@pytest.fixture(scope="module")
def exported(fine_tuned, export):
    result = export(fine_tuned)
    assert result.code == 0, result.err
    return fine_tuned


def test_a_fine_tuned_copy_is_exported(exported):
    from sentence_transformers import SentenceTransformer

    assert {path.name for path in (exported / "onnx").glob("*.onnx")} >= {"model.onnx", "model_quantized.onnx"}
    expected = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu").encode(TEXTS)
    assert (expected * AsteriskEncoder(str(RELEASE)).encode(TEXTS)).sum(1).min() < 0.999, "training changed it"
    assert (expected * AsteriskEncoder(str(exported), "onnx/model.onnx").encode(TEXTS)).sum(1).min() > 0.99999
    assert (expected * AsteriskEncoder(str(exported)).encode(TEXTS)).sum(1).min() > 0.99


def test_weights_in_float32_on_request(fine_tuned, export, tmp_path):
    model = shutil.copytree(fine_tuned, tmp_path / "model")
    assert export(model, "--float32").code == 0
    assert (model / "onnx" / "model.onnx").stat().st_size > (model / "model.safetensors").stat().st_size


def test_class_names_of_newer_versions_are_understood(fine_tuned, export, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = shutil.copytree(fine_tuned, tmp_path / "model")
    tokenizer, modules = (
        json.loads((model / name).read_text()) for name in ("tokenizer_config.json", "modules.json")
    )
    modules[2]["type"] = "sentence_transformers.base.modules.normalize.Normalize"
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"tokenizer_class": "TokenizersBackend"}))
    (model / "modules.json").write_text(json.dumps(modules))
    result = export(model)
    assert result.code == 0, result.err
    assert (
        json.loads((model / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    )
    vectors, expected = (
        SentenceTransformer(str(path), trust_remote_code=True, device="cpu").encode(TEXTS)
        for path in (model, fine_tuned)
    )
    assert np.array_equal(vectors, expected)


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


REGISTERED = "import asterisk.export.fp32; from optimum.commands.optimum_cli import main; main()"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "library"),
    [
        (("-m", "optimum.commands.optimum_cli"), "sentence_transformers"),
        (("-c", REGISTERED), "transformers"),
    ],
)
def test_optimum_cli_exports_it(command, library, fine_tuned, python, tmp_path):
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    model = shutil.copytree(fine_tuned, tmp_path / "model", ignore=shutil.ignore_patterns("onnx"))
    if library == "transformers":  # a copy as AutoModel saves it
        for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
            (model / name).unlink()
    options = ("--task", "feature-extraction", "--trust-remote-code")
    done = python(*command, "export", "onnx", "-m", model, *options, tmp_path / "out", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    tokens = {"sentence_transformers": "token_embeddings", "transformers": "last_hidden_state"}[library]
    assert [output.name for output in session.get_outputs()] == [tokens, "sentence_embedding"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch([*TEXTS, "long text " * 100])
    inputs = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
    }
    expected = SentenceTransformer(str(fine_tuned), trust_remote_code=True, device="cpu").encode(
        [*TEXTS, "long text " * 100]
    )
    assert (session.run(["sentence_embedding"], inputs)[0] * expected).sum(1).min() > 0.99999


@pytest.mark.parametrize(
    ("name", "options"), [("AdaptiveLayerLoss", {}), ("Matryoshka2dLoss", {"matryoshka_dims": [256, 32]})]
)
def test_losses_over_layers(name, options):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(str(RELEASE), trust_remote_code=True, device="cpu")
    make_loss = getattr(losses, name)
    loss = make_loss(model, losses.MultipleNegativesRankingLoss(model), n_layers_per_step=-1, **options)
    features = [model.tokenize(texts[:2]) for texts in PAIRS.values()]
    with torch.no_grad():
        before = loss(features, None)
    train(model, loss)
    with torch.no_grad():
        assert loss(features, None) < before / 2


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
