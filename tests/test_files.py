"""Files that appear whole or not at all, and the fingerprint of code, without comments and docstrings."""

import importlib.util

import pytest

from asterisk.files import atomic_directory, code_fingerprint


def test_run_killed_during_the_swap_is_recovered(tmp_path):
    (tmp_path / ".pairs.old").mkdir()
    (tmp_path / ".pairs.old" / "data").write_text("precious")
    with pytest.raises(ValueError, match="no new rows"), atomic_directory(tmp_path / "pairs"):
        raise ValueError("no new rows")
    assert (tmp_path / "pairs" / "data").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


SOURCE = '''"""Apples."""

class Tree:
    """A tree."""

    def ripest(self, apples):
        """Return the ripest of `apples`."""
        return max(apples, key="ripe {}".format)  # by its name
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""Apples."""', '"""Pears."""', True),
        ('"""A tree."""', '"""One tree of many."""', True),
        ('"""Return the ripest of `apples`."""', '"""Return the best.\n\n        By name.\n        """', True),
        ("  # by its name", "", True),
        ("(self, apples)", "( self, apples )", True),
        ("max", "min", False),
        ("ripe {}", "green {}", False),
        ("class Tree", "class Bush", False),
    ],
)
def test_fingerprint_is_that_of_the_code(tmp_path, old, new, same):
    found = []
    for name, source in (("one", SOURCE), ("other", SOURCE.replace(old, new))):
        (tmp_path / f"{name}.py").write_text(source)
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.append(code_fingerprint(module))
    assert (found[0] == found[1]) == same
