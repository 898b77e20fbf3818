"""A stand-in for the Hugging Face Hub on loopback, so that tests run the real client without a network.

It speaks the part of the HTTP API that `huggingface_hub` uses for model repositories and keeps all in memory.
Large files go through plain Git LFS, never Xet. Clients from late 1.x on do not ask the server which of the
two to use: where hf_xet is installed they need `HF_HUB_DISABLE_XET=1` (see `HubServer.client_env`).
By hand: `python tests/hub_server.py --port 8000`.
"""

import argparse
import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".bin", ".gz", ".npy", ".npz", ".onnx", ".pt", ".safetensors", ".zip")
LARGEST_REGULAR_FILE = 10_000_000
CLIENT_TRIES = 6  # the client sends a failing LFS upload so often, 1 + 2 + 4 + 8 + 8 s apart; a commit only once

# Method and path -> method of `Handler`. A repository name is two segments, every other {part} is one.
ROUTES = {
    "GET /api/whoami-v2": "whoami",
    "POST /api/validate-yaml": "validate_model_card",
    "POST /api/repos/create": "create_repo",
    "GET /api/models/{repo}(?:/revision/{revision})?": "model_info",
    "GET /api/models/{repo}/refs": "list_refs",
    "GET /api/models/{repo}/tree/{revision}(?:/(?P<folder>.+))?": "list_tree",
    "POST /api/models/{repo}/paths-info/{revision}": "paths_info",
    "POST /api/models/{repo}/branch/{branch}": "create_branch",
    "POST /api/models/{repo}/preupload/{revision}": "preupload",
    "POST /api/models/{repo}/commit/{branch}": "commit",
    "POST /{repo}.git/info/lfs/objects/batch": "lfs_batch",
    "POST /{repo}.git/info/lfs/objects/verify": "lfs_verify",
    "PUT /lfs-upload/{number}": "lfs_upload",
    "(?:GET|HEAD) /{repo}/resolve/{revision}/(?P<path>.+)": "resolve",
}
POST_WITHOUT_TOKEN = ("validate_model_card", "paths_info")


def compile_route(route):
    route = route.replace("{repo}", "(?P<repo>[^/]+/[^/]+?)")
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route))


PATTERNS = {compile_route(route): name for route, name in ROUTES.items()}


class HubError(Exception):
    """An error answer; the client picks its exception class by `code`, sent as X-Error-Code."""

    def __init__(self, status, message, code="", headers=()):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message, "X-Error-Code": code, **dict(headers)}


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool

    @cached_property
    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        content = pointer.encode() if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.git_oid

    def entry(self, path):
        lfs = {"oid": self.sha256, "sha256": self.sha256, "size": len(self.data), "pointerSize": 134}
        entry = {"type": "file", "path": path, "size": len(self.data), "oid": self.git_oid}
        return entry | ({"lfs": lfs} if self.lfs else {})


@dataclass(frozen=True)
class Commit:
    message: str
    files: dict  # path -> Blob; never changed
    parent: "Commit | None" = None

    @cached_property
    def sha(self):
        tree = sorted((path, blob.git_oid) for path, blob in self.files.items())
        return hashlib.sha1(repr((self.message, tree, self.parent and self.parent.sha)).encode()).hexdigest()

    def history(self):
        return [self, *(self.parent.history() if self.parent else [])]


@dataclass
class Repo:
    name: str
    private: bool
    branches: dict = field(default_factory=dict)  # name -> Commit
    lfs_objects: dict = field(default_factory=dict)  # sha256 -> bytes; uploaded, perhaps in no commit yet

    def __post_init__(self):
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.branches["main"] = Commit("initial commit", {".gitattributes": Blob(rules.encode(), lfs=False)})

    def at(self, revision):
        commits = {commit.sha: commit for head in self.branches.values() for commit in head.history()}
        if commit := (commits | self.branches).get(revision):
            return commit
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class HubServer:
    """A context manager around the running server; `url` is the client's endpoint, `requests` a log."""

    def __init__(self, token="hf_test", user="user", port=0):
        self.token, self.user, self.repos, self.uploads = token, user, {}, []
        self.requests, self.faults, self.lock = [], [], threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", port), type("HubHandler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.http.shutdown()
        self.http.server_close()

    def client_env(self, home):
        """Make the environment of a client process that knows this Hub alone, with its cache in `home`."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        flags = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_TOKEN": self.token, "NO_PROXY": "127.0.0.1"}
        return env | dict.fromkeys(flags, "1")

    def commits(self, repo_id, revision="main"):
        """List (sha, message), newest first; the last is the "initial commit" that every repository has."""
        return [(commit.sha, commit.message) for commit in self.repos[repo_id].at(revision).history()]

    def files(self, repo_id, revision="main"):
        """Map path to bytes, with the .gitattributes of the initial commit."""
        return {path: blob.data for path, blob in self.repos[repo_id].at(revision).files.items()}

    def fail_next(self, kind, times=1, on=("lfs", "commit")):
        """Fail the next `times` LFS uploads or commits; `kind` is "cut_lfs_upload" or "error_STATUS".

        The client repeats an LFS upload after a 5xx answer or a lost connection, not after a 4xx. Make a fault
        last by times=CLIENT_TRIES, or quicker by a second fault "error_403"; `faults.clear()` ends all.
        """
        if not re.fullmatch(r"cut_lfs_upload|error_[45]\d\d", kind):
            raise ValueError(f"unknown fault: {kind}")
        self.faults += [(kind, ["lfs"] if kind == "cut_lfs_upload" else on)] * times

    def take_fault(self, step):
        with self.lock:
            fault = next((fault for fault in self.faults if step in fault[1]), None)
            if fault:
                self.faults.remove(fault)
            return fault and fault[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self):
        self.hub.requests.append((self.command, self.path))
        path, length = urlsplit(self.path).path, int(self.headers.get("Content-Length") or 0)
        fault = self.hub.take_fault("lfs" if self.command == "PUT" else "commit" if "/commit/" in path else "")
        self.body = self.rfile.read(length // 2 if fault == "cut_lfs_upload" else length)
        if len(self.body) < length:  # cut here, or the client went away: nothing is stored
            self.close_connection = True
            return
        try:
            if fault:
                raise HubError(int(fault.removeprefix("error_")), "a fault that the test asked for")
            answer = self.dispatch(path)
            status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        except HubError as error:
            status, body, headers = error.status, {"error": str(error)}, error.headers
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), headers | {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": len(body)}).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def dispatch(self, path):
        authorization = self.headers.get("Authorization")
        signed_in = authorization == f"Bearer {self.hub.token}"
        if authorization and not signed_in:
            raise HubError(401, "Invalid credentials in Authorization header")
        matches = [(pattern.fullmatch(f"{self.command} {path}"), name) for pattern, name in PATTERNS.items()]
        match, name = next((pair for pair in matches if pair[0]), (None, None))
        if not match:
            raise HubError(404, f"no such endpoint: {self.command} {path}")
        if not signed_in and (name == "whoami" or (self.command == "POST" and name not in POST_WITHOUT_TOKEN)):
            raise HubError(401, "Invalid username or password.")
        arguments = {key: unquote(value or "") for key, value in match.groupdict().items()}
        if "repo" in arguments:
            arguments["repo"] = repo = self.hub.repos.get(arguments["repo"])
            if repo is None or (repo.private and not signed_in):
                raise HubError(404 if signed_in else 401, "Repository not found", "RepoNotFound")
        return getattr(self, name)(**arguments)

    def log_message(self, *arguments):
        pass

    def whoami(self):
        access = {"displayName": "test", "role": "write", "createdAt": "2025-01-01T00:00:00.000Z"}
        return {"type": "user", "name": self.hub.user, "orgs": [], "auth": {"accessToken": access}}

    def validate_model_card(self):
        return {"errors": [], "warnings": []}

    def create_repo(self):
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or self.hub.user}/{wanted['name']}"
        repo = Repo(name, private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        new = self.hub.repos.setdefault(name, repo) is repo
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        return answer if new else (409, answer | {"error": "You already created this model repo"}, {})

    def model_info(self, repo, revision):
        commit = repo.at(revision or "main")
        info = {"id": repo.name, "modelId": repo.name, "author": repo.name.split("/")[0], "sha": commit.sha}
        info |= {
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "likes": 0,
            "downloads": 0,
        }
        info["siblings"] = [{"rfilename": path} for path in sorted(commit.files)]
        if "blobs=" in self.path:
            for sibling in info["siblings"]:
                blob = commit.files[sibling["rfilename"]]
                sibling |= blob.entry(sibling["rfilename"]) | {"blobId": blob.git_oid}
        return info

    def list_refs(self, repo):
        heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c.sha} for n, c in repo.branches.items()]
        return {"branches": heads, "tags": [], "converts": [], "pullRequests": []}

    def create_branch(self, repo, branch):
        if branch in repo.branches:
            raise HubError(409, f"Reference already exists: {branch}")
        repo.branches[branch] = repo.at(json.loads(self.body or "{}").get("startingPoint", "main"))
        return {}

    def list_tree(self, repo, revision, folder):
        files, prefix = repo.at(revision).files, f"{folder}/" if folder else ""
        paths = {path for path in files if path.startswith(prefix)}
        for path in list(paths):
            parts = path.removeprefix(prefix).split("/")
            paths |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts))}
        if folder and not paths:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        if not re.search("recursive=(true|1)", self.path, re.IGNORECASE):
            paths = {path for path in paths if "/" not in path.removeprefix(prefix)}
        return self.entries(files, sorted(paths))

    def paths_info(self, repo, revision):
        return self.entries(repo.at(revision).files, parse_qs(self.body.decode()).get("paths", []))

    def entries(self, files, paths):
        folders = {path for path in paths if any(name.startswith(f"{path}/") for name in files)}
        folder = {"type": "directory", "oid": "0" * 40, "size": 0}
        found = [path for path in paths if path in folders or path in files]
        return [folder | {"path": path} if path in folders else files[path].entry(path) for path in found]

    def resolve(self, repo, revision, path):
        commit = repo.at(revision)
        if path not in commit.files:  # the client's cache notes the absence under this commit
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.sha})
        blob = commit.files[path]
        size, etag = len(blob.data), f'"{blob.etag}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-ETag": etag, "X-Linked-Size": size} if blob.lfs else {}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not any(wanted.groups()):
            return 200, blob.data, headers
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
        return 206, blob.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}

    def preupload(self, repo, revision):
        current, answers = repo.at(revision).files, []
        for file in json.loads(self.body)["files"]:
            lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LARGEST_REGULAR_FILE
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in current:  # lets the client leave out what has not changed
                answer["oid"] = current[file["path"]].etag
            answers.append(answer)
        return {"files": answers}

    def lfs_batch(self, repo):
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(self.body)["objects"]]
        for answer in objects:
            if answer["oid"] not in repo.lfs_objects:  # without actions the client has nothing to upload
                upload = f"{self.hub.url}/lfs-upload/{len(self.hub.uploads)}"
                verify = f"{self.hub.url}/{repo.name}.git/info/lfs/objects/verify"
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
                self.hub.uploads.append((repo, answer["oid"]))
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, number):
        """Take a file without a token: as to the signed addresses of the Hub's storage, none is sent."""
        repo, oid = self.hub.uploads[int(number)]
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "this is not the file that was announced")
        repo.lfs_objects[oid] = self.body
        return 200, b"", {}

    def lfs_verify(self, repo):
        wanted = json.loads(self.body)
        if len(repo.lfs_objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(404, "Object does not exist")
        return {}

    def commit(self, repo, branch):
        """Build the new revision aside and move the branch last: a commit happens whole or not at all."""
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        with self.hub.lock:
            head = repo.at(branch)
            if branch not in repo.branches or "create_pr" in self.path:
                raise HubError(400, "commits go to branches here")
            if not head.sha.startswith(header["value"].get("parentCommit", "")):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for operation in operations:
                self.apply(repo, files, operation["key"], operation["value"])
            parts = [header["value"]["summary"], header["value"].get("description")]
            repo.branches[branch] = new = Commit("\n\n".join(filter(None, parts)), files, head)
        # Not self.hub.url, as on the Hub: 0.x clients given endpoint= cannot parse another host here.
        url = f"https://huggingface.co/{repo.name}/commit/{new.sha}"
        return {"success": True, "commitOid": new.sha, "commitUrl": url}

    def apply(self, repo, files, key, value):
        path = value["path"]
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile" and value["oid"] in repo.lfs_objects:
            files[path] = Blob(repo.lfs_objects[value["oid"]], lfs=True)
        elif key == "deletedFile" and path in files:
            del files[path]
        elif key == "deletedFile":
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        else:
            raise HubError(400, f"invalid operation: {key} {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run an empty Hub on loopback until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8000)
    hub = HubServer(port=parser.parse_args().port)
    Handler.log_message = BaseHTTPRequestHandler.log_message
    print(
        f"export HF_ENDPOINT={hub.url} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1 HF_HOME=$(mktemp -d)", flush=True
    )
    hub.http.serve_forever()
