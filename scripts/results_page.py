"""Lay out the results side by side: `results/*.json` -> `results/README.md`, with plots of quality against cost.

    python scripts/results_page.py --results results

Reads what evaluate_models.py wrote of each model and, for speed, what benchmarks/inference.py wrote; quoted
figures are marked.
"""

import argparse
from pathlib import Path

from asterisk.errors import run
from asterisk.evaluation.page import (
    AGREEMENT,
    NAMES,
    NOTES,
    find_rows,
    interval_table,
    kept_table,
    main_table,
    variant_table,
)
from asterisk.evaluation.plots import plot_quality
from asterisk.files import read_json, write_text


def main() -> None:
    """Write the page and its plots."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="directory of the results")
    results = parser.parse_args().results
    rows = find_rows(results)
    found = {
        path.stem: result for path in sorted(results.glob("*.json")) if "tasks" in (result := read_json(path))
    }
    parts = ["# Results", main_table(rows), NOTES]
    if known := [f"- {name}: {NAMES[name]}" for name in found if name in NAMES]:
        parts.append("\n".join(known))
    if any(("HeldOutPairs", "test") in row["scores"] for row in rows):
        parts.append(AGREEMENT)
    if kept := kept_table(rows):
        parts += ["## Share of the teacher kept, in percent", kept]
    key = ("STSBenchmark", "test")
    for cost, label in (("speed", "speed relative to the teacher in PyTorch"), ("megabytes", "download, MB")):
        points = {
            row["name"]: (row[cost], row["scores"][key]) for row in rows if row[cost] and key in row["scores"]
        }
        if points:
            plot_quality(points, label, results / f"quality_{cost}.png")
            parts.append(f"![quality over {label}](quality_{cost}.png)")
    parts += ["## Shortened and quantised embeddings", *map(variant_table, found.values())]
    parts += ["## Correlation with human scores", interval_table(list(found.values()))]
    for name in found:
        for file, text in ((f"{name}.png", "cosines against gold"), (f"{name}_training.png", "training")):
            if (results / file).is_file():
                parts.append(f"![{name}: {text}]({file})")
    origins = []
    for name, result in found.items():
        recipe = result["recipe"]
        versions = ", ".join(f"{package} {version}" for package, version in recipe["versions"].items())
        facts = f"{result['date']}, seed {result['seed']}, weights {recipe['model']}"
        origins.append(f"- `{name}.json`: {facts}; {versions}")
    parts += ["## Where the figures come from", "\n".join(origins)]
    write_text(results / "README.md", "\n\n".join(parts) + "\n")
    print(f"{results / 'README.md'}: {len(rows)} rows")


if __name__ == "__main__":
    run(main)
