"""What can be imported if nothing is installed but what an extra of the project requires."""

import importlib
import pkgutil
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "asterisk-embedding"
COPIES = {"ray": {"colorama", "psutil"}}  # what a distribution brings a copy of


def required(extra):
    """Return the names of the distributions that the project with an extra requires, directly or not."""
    found, todo = set(), [(PROJECT, extra)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            requirements = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # what needs it will not import
            continue
        for requirement in requirements:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), further) for further in ("", *requirement.extras)]
    return {name for name, _ in found}


class WithoutOthers:
    """A finder of modules that finds none of the hidden top-level packages."""

    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *arguments):
        return None if name.partition(".")[0] in self.hidden else self.finder.find_spec(name, *arguments)


def import_modules(extra, *names):
    """Import modules and those of packages, all other distributions hidden; no extra is the base dependencies."""
    kept = required(extra)
    kept |= {copy for name in kept for copy in COPIES.get(name, ())}
    hidden = {
        name
        for name, distributions in packages_distributions().items()
        if kept.isdisjoint(map(canonicalize_name, distributions))
    }
    hidden -= sys.modules.keys()
    sys.meta_path[:] = [WithoutOthers(finder, hidden) for finder in sys.meta_path]
    for name in names:
        for module in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", [])):
            if not module.ispkg:
                importlib.import_module(f"{name}.{module.name}")
    assert "pytest" in hidden
    assert hidden.isdisjoint(sys.modules)
