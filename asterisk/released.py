"""Where the released model is: the commands use it unless told otherwise."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
# In an installed package, and in a clone of the repository.
PLACES = (PACKAGE / "model", PACKAGE.parent / "release" / "asterisk")


def released_model() -> str:
    """Return $ASTERISK_MODEL, or else the directory of the weights that came with the package.

    Raises:
        FileNotFoundError: If none came with it.
    """
    if name := os.environ.get("ASTERISK_MODEL"):
        return name
    for place in PLACES:
        if place.is_dir():
            return str(place)
    raise FileNotFoundError("no model came with this installation: name a directory or Hub id with --model")
