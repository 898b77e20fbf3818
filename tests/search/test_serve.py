"""Other programs on the machine: OpenAI's own client, and plain HTTP."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import openai
import pytest
from search_files import NOTES, RELEASE, write_files

from asterisk.search import Index
from asterisk.search.serve import LARGEST_BODY, MOST_INPUTS

ORIGIN = "http://notes.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server in a process of its own; one page may ask it."""
    directory = tmp_path_factory.mktemp("served")
    with Index(directory / "index.sqlite", str(RELEASE), threads=1) as index:
        index.index(write_files(directory / "vault", NOTES))
    command = [sys.executable, "-m", "asterisk.cli", "serve", "--port", "0", "--origin", ORIGIN]
    environment = os.environ | {"ASTERISK_INDEX": str(directory / "index.sqlite")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().removeprefix("serving ").strip()
        process.terminate()


def get(server, path, **headers):
    request = urllib.request.Request(server + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers, json.loads(response.read())


def refusal(call, *arguments, **options):
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(*arguments, **options)
    return caught.value.code, caught.value.read().decode()


def test_openai_client(server, released_encoder):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    texts = ["a night train", "", "חתול"]
    for form in ("float", "base64"):
        answer = client.embeddings.create(model="asterisk", input=texts, encoding_format=form)
        assert [row.index for row in answer.data] == [0, 1, 2]
        assert answer.usage.prompt_tokens > 5
        if form == "float":
            vectors = [row.embedding for row in answer.data]
            np.testing.assert_allclose(vectors, released_encoder.encode(texts), atol=1e-6)
    single = client.embeddings.create(model="asterisk", input="a night train", dimensions=64)
    np.testing.assert_allclose(
        single.data[0].embedding, released_encoder.encode(texts[0], truncate_dim=64), atol=1e-6
    )


def test_openai_client_sees_mistakes(server):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="input must be a text"):
        client.embeddings.create(model="asterisk", input=[[1, 2, 3]])
    with pytest.raises(openai.BadRequestError, match="truncate_dim"):
        client.embeddings.create(model="asterisk", input="x", dimensions=0)
    with pytest.raises(openai.APIStatusError, match="2,048 texts") as caught:
        client.embeddings.create(model="asterisk", input=["x"] * (MOST_INPUTS + 1))
    assert caught.value.status_code == 413


def test_search(server):
    _, answer = get(server, "/search?" + urllib.parse.urlencode({"q": "water for the heating", "limit": 1}))
    (hit,) = answer["hits"]
    assert hit["path"].endswith("Boiler.md")
    assert hit["line"] == 7
    _, answer = get(server, "/search?q=bake&mode=words&tag=recipes&tag=baking&path=bread&since=0")
    assert [hit["title"] for hit in answer["hits"]] == ["Sourdough"]


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/search", 400, "the query is empty"),
        ("/search?q=x&limit=0", 400, "limit is 0"),
        ("/search?q=x&limit=many", 400, "many"),
        ("/search?q=x&mode=magic", 400, "mode must be one of"),
        ("/search?q=" + "x" * 10_001, 413, "10,000 characters"),
        ("/elsewhere", 404, "Not Found"),
    ],
)
def test_mistakes(server, path, code, message):
    assert refusal(get, server, path)[0] == code
    assert message in refusal(get, server, path)[1]


def test_large_bodies_and_no_json_are_refused(server):
    def post(data):
        return urllib.request.urlopen(urllib.request.Request(f"{server}/v1/embeddings", data=data), timeout=30)

    assert refusal(post, b'{"input": "' + b"x" * LARGEST_BODY + b'"}')[0] == 413
    assert refusal(post, b"input=x")[0] == 400
    assert refusal(post, b"[]")[0] == 400


def test_pages_of_other_origins_get_no_answer(server):
    headers, _ = get(server, "/search?q=train", Origin="http://evil.example")
    assert "access-control-allow-origin" not in headers
    headers, _ = get(server, "/search?q=train", Origin=ORIGIN)
    assert headers["access-control-allow-origin"] == ORIGIN
    assert refusal(get, server, "/search?q=train", Host="evil.example")[0] == 400  # a name that was pointed here


def test_port_that_is_taken(server, tmp_path):
    port = server.rpartition(":")[2]
    command = [sys.executable, "-m", "asterisk.cli", "serve", "--port", port, "--index", tmp_path / "none"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (2, f"error: port {port} is taken; choose another with --port\n")
