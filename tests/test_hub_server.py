"""The stand-in Hub, seen through the real `huggingface_hub` client."""

import hashlib
import importlib.util
import subprocess
import sys
import textwrap
import time
import urllib.request

import pytest
from hub_server import CLIENT_TRIES, HubServer
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "user/asterisk"
WEIGHTS = bytes(range(256)) * 4096
CORPUS = b"a line of text\n" * 700_000  # over the size where a text file goes through LFS


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # what the variable of this name does
    with HubServer() as hub:
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "onnx" / "model.onnx").write_bytes(WEIGHTS[::-1])
    return folder


@pytest.fixture
def pushed(hub, api, folder):
    """Push the folder once; return the address of a file in it."""
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder, commit_message="first")
    return f"{hub.url}/{REPO}/resolve/main/model.safetensors"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def download(hub, cache, **options):
    options = {"token": hub.token} | options
    path = snapshot_download(REPO, endpoint=hub.url, cache_dir=cache, **options)
    files = contents(type(cache)(path))
    files.pop(".gitattributes")
    return files


def run_client(hub, code, home):
    """Run code in a fresh process that knows the Hub from its environment, with nothing in its cache."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=hub.client_env(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fetch(url, **headers):
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers))


def test_push_then_download_gives_identical_bytes(hub, api, folder, pushed, tmp_path):
    (folder / "corpus.txt").write_bytes(CORPUS)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert download(hub, tmp_path / "cache") == contents(folder)
    uploads = [path for method, path in hub.requests if method == "PUT"]
    assert len(uploads) == 3, "both weight files and the long text go through LFS, each once"


def test_repository_is_described(hub, api, pushed):
    assert api.whoami()["name"] == "user"
    assert api.repo_exists(REPO) and not api.repo_exists("user/other")
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    info = api.model_info(REPO, files_metadata=True)
    weights = next(sibling for sibling in info.siblings if sibling.rfilename == "model.safetensors")
    assert (info.sha, info.private) == (hub.commits(REPO)[0][0], False)
    assert (weights.lfs.sha256, weights.size) == (hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    top = {entry.path for entry in api.list_repo_tree(REPO)}
    assert top == {".gitattributes", "README.md", "model.safetensors", "onnx"}
    assert {entry.path for entry in api.list_repo_tree(REPO, "onnx")} == {"onnx/model.onnx"}
    assert [entry.path for entry in api.get_paths_info(REPO, ["onnx", "README.md", "none"])] == [
        "onnx",
        "README.md",
    ]


def test_unchanged_folder_adds_no_commit(hub, folder, pushed, tmp_path):
    before = hub.commits(REPO)
    push = (
        f"from huggingface_hub import upload_folder; upload_folder(repo_id={REPO!r}, folder_path={str(folder)!r})"
    )
    run_client(hub, push, tmp_path / "home")
    assert hub.commits(REPO) == before
    assert [message for _, message in before] == ["first", "initial commit"]


def test_changed_file_adds_one_commit_and_keeps_the_old_revision(hub, api, folder, pushed, tmp_path):
    old_files, (old_sha, _) = contents(folder), hub.commits(REPO)[0]
    (folder / "model.safetensors").write_bytes(b"new weights")
    (folder / "README.md").unlink()
    api.upload_folder(repo_id=REPO, folder_path=folder, delete_patterns="*", commit_message="second")
    assert [message for _, message in hub.commits(REPO)] == ["second", "first", "initial commit"]
    assert download(hub, tmp_path / "new") == contents(folder)
    assert download(hub, tmp_path / "old", revision=old_sha) == old_files


def test_branch_starts_at_main_and_moves_alone(hub, api, pushed):
    api.create_branch(REPO, branch="trial")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO, revision="trial")
    assert {ref.name for ref in api.list_repo_refs(REPO).branches} == {"main", "trial"}
    assert "x.txt" in hub.files(REPO, "trial") and "x.txt" not in hub.files(REPO)


def test_commit_on_an_outdated_parent_is_refused(hub, api, pushed):
    with pytest.raises(HfHubHTTPError, match="412"):
        api.upload_file(
            path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, parent_commit=hub.commits(REPO)[1][0]
        )
    assert len(hub.commits(REPO)) == 2


def test_wrong_token(hub, folder, pushed):
    stranger = HfApi(endpoint=hub.url, token="hf_wrong")
    for call in (
        stranger.whoami,
        lambda: stranger.model_info(REPO),
        lambda: stranger.upload_folder(repo_id=REPO, folder_path=folder),
    ):
        with pytest.raises((HfHubHTTPError, OSError), match=r"401|Invalid user token") as error:
            call()
        assert error.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.url, token=False).upload_folder(repo_id=REPO, folder_path=folder)


def test_missing_things_have_their_own_errors(hub, api, pushed, tmp_path):
    options = {"endpoint": hub.url, "token": hub.token, "cache_dir": tmp_path / "cache"}
    with pytest.raises(EntryNotFoundError, match="Entry Not Found for url"):
        hf_hub_download(REPO, "none.json", **options)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(REPO, "README.md", revision="none", **options)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("user/none", "README.md", **options)


def test_private_repository_needs_the_token(hub, api, folder, tmp_path):
    api.create_repo(REPO, private=True)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    with pytest.raises(RepositoryNotFoundError):
        download(hub, tmp_path / "none", token=False)
    assert api.model_info(REPO).private
    assert download(hub, tmp_path / "cache") == contents(folder)


def test_ranges_and_headers(hub, pushed):
    sha = hashlib.sha256(WEIGHTS).hexdigest()
    for wanted, expected in [("2-5", WEIGHTS[2:6]), ("1048570-", WEIGHTS[-6:]), ("-3", WEIGHTS[-3:])]:
        with fetch(pushed, Range=f"bytes={wanted}") as answer:
            assert (answer.status, answer.read()) == (206, expected)
    with fetch(pushed) as answer:
        assert (answer.status, answer.read()) == (200, WEIGHTS)
        assert answer.headers["X-Linked-ETag"] == answer.headers["ETag"] == f'"{sha}"'
        assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
        assert answer.headers["X-Repo-Commit"] == hub.commits(REPO)[0][0]
    with pytest.raises(urllib.error.HTTPError, match="416"):
        fetch(pushed, Range="bytes=9999999-")


def test_upload_must_be_the_announced_file(hub, pushed):
    request = urllib.request.Request(f"{hub.url}/lfs-upload/0", data=b"something else", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_client_repeats_an_upload_that_was_cut(hub, api, folder, pushed):
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"2")
    hub.fail_next("cut_lfs_upload")
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.files(REPO)["model.safetensors"] == WEIGHTS + b"2"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("error_500", {"times": CLIENT_TRIES}),
        ("cut_lfs_upload", {"times": CLIENT_TRIES}),
        ("error_403", {}),
        ("error_500", {"on": ["commit"]}),
    ],
)
def test_failed_push_changes_nothing(hub, api, folder, pushed, tmp_path, monkeypatch, kind, options):
    before, old_files = hub.commits(REPO), contents(folder)
    (folder / "README.md").write_text("new text")
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"2")
    hub.fail_next(kind, **options)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client's 23 s between its tries
    with pytest.raises((HfHubHTTPError, RuntimeError)):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.faults == [], "every fault was met"
    assert hub.commits(REPO) == before
    assert download(hub, tmp_path / "cache") == old_files
    api.upload_folder(repo_id=REPO, folder_path=folder)  # the push after it is a whole one
    assert download(hub, tmp_path / "cache") == contents(folder)


def test_lasting_fault_can_be_ended_early(hub, api, folder, pushed):
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"2")
    hub.fail_next("cut_lfs_upload")
    hub.fail_next("error_403")
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert len(hub.commits(REPO)) == 2


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_transformers_model_there_and_back(hub, tmp_path):
    code = f"""
        import torch
        from huggingface_hub import HfApi
        from transformers import AutoModel, BertConfig, BertModel

        sizes = {{"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}}
        model = BertModel(BertConfig(vocab_size=100, **sizes))
        model.save_pretrained({str(tmp_path / "tiny")!r})
        HfApi().create_repo("user/tiny")
        HfApi().upload_folder(repo_id="user/tiny", folder_path={str(tmp_path / "tiny")!r})
        loaded = AutoModel.from_pretrained("user/tiny").state_dict()
        print(all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items()))
    """
    assert run_client(hub, textwrap.dedent(code), tmp_path / "home") == "True\n"
