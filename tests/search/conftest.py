"""An index of the released model, and files of each kind to put into it."""

import pytest
from search_files import NOTES, RELEASE, write_files

from asterisk import AsteriskEncoder
from asterisk.search import Index


@pytest.fixture(scope="session")
def encoder():
    return AsteriskEncoder(str(RELEASE), threads=1)


@pytest.fixture
def open_index(tmp_path, encoder):
    """Open an index with an encoder that is loaded already."""
    opened = []

    def call(path=tmp_path / "data" / "index.sqlite"):
        index = Index(path, str(RELEASE), threads=1)
        index.__dict__ |= {"encoder": encoder, "query_encoder": encoder}
        opened.append(index)
        return index

    yield call
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index):
    return open_index()


@pytest.fixture
def vault(tmp_path):
    return write_files(tmp_path / "vault", NOTES)
