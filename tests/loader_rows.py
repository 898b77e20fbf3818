"""Every way to load the model, on the same 50 sentences: the rows of the table in docs/loaders.md.

    python tests/loader_rows.py build/model build/copy     # print the table, a column for each model

Each row is a function of the model's directory that returns unit vectors of `SENTENCES`; libraries are imported
inside it, because no environment has them all.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

NODE_ROOT = Path(__file__).parents[1] / "web" / "node_modules"  # `make test` installs transformers.js there
FP32, INT8 = 0.99999, 0.99
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "fastembed", "langchain-huggingface")
TALE = "a quiet heron waits beside the old mill while rain drums upon tin roofs and nobody counts the hours"
WORDS = TALE.split()
SENTENCES = [
    *("", " ", "a", "No.", "HERON", "heron", "\t mill \n roof ", "😀", "rain 🌧️ and sun ☀️", "👩\u200d👩\u200d👧"),
    *(
        "古い水車小屋のそばで鷺が待つ",
        "오래된 방앗간",
        "老磨坊旁的苍鹭",
        "naïve café, coöperation, Übermut",
        "Цапля ждёт",
    ),
    *(
        "1234567890",
        "3.14 % of $5",
        "x" * 150,
        "<b>mill</b> &amp; roof",
        "a\u0301 e\u0301",
        "[SEP] [PAD]",
        "##ing",
    ),
    *(" ".join(WORDS[: n % 19 + 1]) for n in range(18)),
    *("The mill is open.", "The mill is not open.", "Is the mill open?"),
    *("rain drums on the roof", "roof the on rain"),
    *(" ".join(WORDS * 3), " ".join(WORDS * 12), " ".join(WORDS * 40), "heron " * 511, "heron " * 700),
]


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale the rows of `[n, dim]` to length one."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def auto_model(model: Path) -> np.ndarray:
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(model, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=True)
    encoder = AutoModel.from_pretrained(model, config=config, trust_remote_code=True).eval()
    with torch.no_grad():
        return normalise(
            encoder(**tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")).sentence_embedding
        )


def sentence_transformer(model: Path, **options: object) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return normalise(
        SentenceTransformer(str(model), trust_remote_code=True, device="cpu", **options).encode(SENTENCES)
    )


def sentence_transformer_onnx(model: Path, file_name: str) -> np.ndarray:
    return sentence_transformer(model, backend="onnx", model_kwargs={"file_name": file_name})


def quantized_embeddings(model: Path, precision: str) -> np.ndarray:
    """Embed in INT8 or in bits, as searched and stored, and return them as numbers around zero."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), trust_remote_code=True, device="cpu")
    vectors = encoder.encode(SENTENCES, precision=precision)
    if precision == "binary":
        return np.unpackbits((vectors.astype(np.int16) + 128).astype(np.uint8), axis=1) * 2.0 - 1
    full = encoder.encode(SENTENCES)
    low, high = full.min(axis=0), full.max(axis=0)  # the ranges that encode takes from the sentences
    return normalise((vectors.astype(np.float64) + 128) / 255 * (high - low) + low)


def ort_model(model: Path, file_name: str) -> np.ndarray:
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    encoder = ORTModelForFeatureExtraction.from_pretrained(model, subfolder="onnx", file_name=file_name)
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="np")
    return normalise((encoder(**inputs).last_hidden_state * inputs["attention_mask"][..., None]).sum(1))


def ort_pipeline(model: Path, file_name: str) -> np.ndarray:
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer, pipeline

    encoder = ORTModelForFeatureExtraction.from_pretrained(model, subfolder="onnx", file_name=file_name)
    extract = pipeline("feature-extraction", model=encoder, tokenizer=AutoTokenizer.from_pretrained(model))
    return normalise([np.mean(extract(text, truncation=True)[0], axis=0) for text in SENTENCES])


PLAIN_ONNX = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer

model, texts = sys.argv[1], json.load(sys.stdin)
tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
tokenizer.enable_padding()
encodings = tokenizer.encode_batch(texts)
inputs = {
    "input_ids": np.array([e.ids for e in encodings]),
    "attention_mask": np.array([e.attention_mask for e in encodings]),
}
session = onnxruntime.InferenceSession(f"{model}/onnx/model_quantized.onnx")
print(json.dumps(session.run(["sentence_embedding"], inputs)[0].tolist()))
assert not {"torch", "transformers"} & sys.modules.keys()
"""


def plain_onnxruntime(model: Path) -> np.ndarray:
    """Embed in a process that has only onnxruntime, tokenizers and numpy."""
    return embed_in_process([sys.executable, "-c", PLAIN_ONNX, str(model)])


def embed_in_process(command: list[str], **environment: str) -> np.ndarray:
    """Run a program that reads the sentences as JSON and prints their vectors as JSON on its last line."""
    done = subprocess.run(
        command,
        input=json.dumps(SENTENCES),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return normalise(json.loads(done.stdout.splitlines()[-1]))


def fastembed(model: Path, file_name: str) -> np.ndarray:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"{model}/{file_name}"  # fastembed keeps a register of names
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=json.loads((model / "config.json").read_text())["hidden_size"],
        model_file=f"onnx/{file_name}",
    )
    return normalise(list(TextEmbedding(name, specific_model_path=str(model)).embed(SENTENCES)))


TRANSFORMERS_JS = """
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";
const require = createRequire(process.env.NODE_ROOT + "/");
const { pipeline, env } = await import(pathToFileURL(require.resolve("@huggingface/transformers")));
env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const embed = await pipeline("feature-extraction", process.argv[3], { dtype: "q8", device: "cpu" });
const vectors = [];
for (const text of JSON.parse(readFileSync(0, "utf-8")))
  vectors.push((await embed(text, { pooling: "mean", normalize: true })).tolist()[0]);
console.log(JSON.stringify(vectors));
"""


def transformers_js(model: Path) -> np.ndarray:
    """Embed with @huggingface/transformers in Node."""
    model = model.resolve()
    with tempfile.NamedTemporaryFile("w", suffix=".mjs") as script:
        script.write(TRANSFORMERS_JS)
        script.flush()
        command = ["node", script.name, f"{model.parent}/", model.name]
        return embed_in_process(command, NODE_ROOT=str(NODE_ROOT))


def langchain(model: Path) -> np.ndarray:
    from langchain_huggingface import HuggingFaceEmbeddings

    options = {"trust_remote_code": True, "device": "cpu"}
    return normalise(HuggingFaceEmbeddings(model_name=str(model), model_kwargs=options).embed_documents(SENTENCES))


Row = tuple[float, Callable[[Path], np.ndarray]]
PYTORCH_ROWS: dict[str, Row] = {
    "AutoModel": (FP32, auto_model),
    "SentenceTransformer": (FP32, sentence_transformer),
    "SentenceTransformer, truncate_dim": (FP32, partial(sentence_transformer, truncate_dim=16)),
    "SentenceTransformer, int8 embeddings": (INT8, partial(quantized_embeddings, precision="int8")),
    "SentenceTransformer, binary embeddings": (1.0, partial(quantized_embeddings, precision="binary")),
}
ROWS: dict[str, Row] = {
    **PYTORCH_ROWS,
    "langchain-huggingface": (FP32, langchain),
    "SentenceTransformer, ONNX fp32": (FP32, partial(sentence_transformer_onnx, file_name="onnx/model.onnx")),
    "SentenceTransformer, ONNX INT8": (
        INT8,
        partial(sentence_transformer_onnx, file_name="onnx/model_quantized.onnx"),
    ),
    "ORTModelForFeatureExtraction, fp32": (FP32, partial(ort_model, file_name="model.onnx")),
    "ORTModelForFeatureExtraction, INT8": (INT8, partial(ort_model, file_name="model_quantized.onnx")),
    'pipeline("feature-extraction"), fp32': (FP32, partial(ort_pipeline, file_name="model.onnx")),
    "fastembed, fp32": (FP32, partial(fastembed, file_name="model.onnx")),
    "fastembed, INT8": (INT8, partial(fastembed, file_name="model_quantized.onnx")),
    "onnxruntime + tokenizers + numpy, INT8": (INT8, plain_onnxruntime),
    "transformers.js, INT8": (INT8, transformers_js),
}


def worst_cosine(vectors: np.ndarray, reference: np.ndarray) -> float:
    """Return the smallest cosine of a row's vectors to the reference; shortened ones to its first dimensions.

    Bits must be the signs of the reference: the figure is the share of equal signs, where they are not near zero.
    """
    if set(np.unique(vectors)) <= {-1.0, 1.0}:
        clear = np.abs(reference) > 1e-5
        return float(((vectors > 0) == (reference > 0))[clear].mean())
    return float((vectors * normalise(reference[:, : vectors.shape[1]])).sum(1).min())


def print_table(
    models: Mapping[str, Path], rows: Mapping[str, Row], references: Mapping[str, np.ndarray] | None = None
) -> bool:
    """Print the worst cosine of each row to PyTorch, a column for each model; return whether all are large enough.

    The vectors to compare with are those of `AutoModel` here, or `references`, made with other versions.
    """
    references = references or {name: auto_model(model) for name, model in models.items()}
    print(f"| loader | {' | '.join(models)} | at least |\n|---|{'---:|' * (len(models) + 1)}")
    large_enough = True
    for row, (threshold, embed) in rows.items():
        cosines = [worst_cosine(embed(model), references[name]) for name, model in models.items()]
        large_enough &= all(cosine >= threshold for cosine in cosines)
        print(f"| {row} | {' | '.join(f'{cosine:.7f}' for cosine in cosines)} | {threshold} |")
    versions = [f"{name} {version(name)}" for name in PACKAGES if find_spec(name.replace("-", "_"))]
    print(f"\n{date.today()}, {platform.machine()}: {', '.join(versions)}.")
    return large_enough


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--pytorch", type=Path, help="the PyTorch rows only, against these vectors (.npz)")
    arguments = parser.parse_args()
    models = {model.name: model for model in arguments.models}
    if arguments.pytorch:
        sys.exit(not print_table(models, PYTORCH_ROWS, np.load(arguments.pytorch)))
    sys.exit(not print_table(models, ROWS))


if __name__ == "__main__":
    main()
