"""Take pictures of the page of `web/` with the documentation in it -> `docs/browser_*.png`.

    python scripts/web_screenshots.py release/asterisk

One is as on a desktop, one as on a phone, one dark.
"""

import argparse
import io
from pathlib import Path
from typing import Any

from PIL import Image

from asterisk.errors import run
from asterisk.evaluation.browser import add_files, browser_context, wait_for

PICTURES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 1000}},
    "dark": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
TEXTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "docs/notes/*/*.md", "results/*.md")
QUERY = "how do I make the model smaller"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=Path("release/asterisk"), help="model directory")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="directory of the pictures")
    return parser.parse_args()


def main() -> None:
    """Take each picture with a browser that has seen nothing yet."""
    arguments = parse_arguments()
    files = [path for pattern in TEXTS for path in sorted(Path().glob(pattern))]
    for name, options in PICTURES.items():
        with browser_context(arguments.model, **options) as (context, url):
            page = context.new_page()
            page.goto(url)
            wait_for(page, "#status", "Ready.")
            add_files(page, files)
            page.fill("#threshold", "0.6")
            page.fill("#query", QUERY)
            wait_for(page, "#found", "nearest")
            page.focus("#canvas-box")
            page.keyboard.press("ArrowRight")
            page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            picture: Image.Image = Image.open(io.BytesIO(page.screenshot()))
            if name == "phone":
                page.evaluate("() => document.getElementById('grouping').scrollIntoView()")
                below = Image.open(io.BytesIO(page.screenshot()))
                both = Image.new("RGB", (picture.width + below.width + 16, picture.height), "#808080")
                both.paste(picture, (0, 0))
                both.paste(below, (picture.width + 16, 0))
                picture = both
            path = arguments.output / f"browser_{name}.png"
            # The other methods mix page and panels, or the few pixels of the map's dots.
            few = picture.convert("RGB").quantize(
                method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
            )
            few.save(path, optimize=True)
            print(f"{path.stat().st_size / 1e3:.0f} kB  {path}")


if __name__ == "__main__":
    run(main)
