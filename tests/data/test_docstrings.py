"""Pairs from documentation strings: what becomes of markup, and what is no prose."""

from asterisk.data import docstrings
from asterisk.data.sources import Selection, Tally, kept_pairs

FAKE_MODULE = '''
def full(x):
    """Return the ``ripest``
    apple of :class:`~orchard.Tree`.

    .. versionadded:: 2.0

    >>> full(1)

    The apples of the tree are compared by their colour [1]_, and
    the reddest of them is returned to the caller.

    Args:
        x: an apple
    """

class Bare:
    """Only a summary line."""

    async def parameters(self):
        """Pick all of the apples.

        Parameters
        ----------

        The basket is where the apples of the tree are put.
        """

    def undocumented(self):
        pass

    def nameless(self):
        """:return: an apple of the tree"""
'''


def test_pairs_of_a_fake_library(tmp_path, monkeypatch):
    library = tmp_path / "library"
    (library / "tests").mkdir(parents=True)
    (library / "orchard.py").write_text(FAKE_MODULE)
    (library / "tests" / "test_orchard.py").write_text(FAKE_MODULE.replace("apple", "pear"))
    (library / "broken.py").write_text('"""Broken."""\ndef (')
    monkeypatch.setattr(docstrings.sysconfig, "get_path", lambda name: str(library))
    tally = Tally()
    article = (
        "The apples of the tree are compared by their colour, and the reddest of them is returned to the caller."
    )
    assert list(kept_pairs(Selection(["docstrings"]), tally)) == [
        ("Return the ripest apple of orchard.Tree.", article)
    ]
    assert tally.dropped == {"without description": 2, "without summary line": 1, "unparsable file": 1}
