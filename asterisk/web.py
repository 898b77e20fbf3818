"""The files of the page in `web/`: what is served by `make web`, in the tests, and from a static Space.

The page has no build step. Its libraries are those of `npm ci` in `web/`; they are served under `vendor/`, so that
the browser loads nothing from another place.
"""

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from asterisk.errors import InputError

WEB = Path(__file__).parent.parent / "web"
MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model_quantized.onnx")
ONNX_RUNTIME = "onnxruntime-web/dist/ort-wasm-simd-threaded"
VENDORED = {
    "chart.js": "chart.js/dist/chart.umd.min.js",
    "comlink.js": "comlink/dist/umd/comlink.min.js",
    "comlink.mjs": "comlink/dist/esm/comlink.min.mjs",
    "idb.js": "idb/build/index.js",
    "marked.js": "marked/lib/marked.esm.js",
    "ort.mjs": f"{ONNX_RUNTIME}.mjs",
    "ort.wasm": f"{ONNX_RUNTIME}.wasm",
    "ort-webgpu.mjs": f"{ONNX_RUNTIME}.asyncify.mjs",
    "ort-webgpu.wasm": f"{ONNX_RUNTIME}.asyncify.wasm",
    "papaparse.js": "papaparse/papaparse.min.js",
    "tinyqueue.js": "tinyqueue/index.js",
    "transformers.js": "@huggingface/transformers/dist/transformers.min.js",
    "umap.js": "umap-js/lib/umap-js.min.js",
    "wasm-feature-detect.js": "wasm-feature-detect/dist/esm/index.js",
}
# Fetched when a visitor asks for them, not with the first visit.
ON_DEMAND = ("vendor/ort-webgpu.mjs", "vendor/ort-webgpu.wasm")
# A static Space sends these three at most, so the policy also stands in index.html, and the page's service worker
# adds all four to what it serves: a worker takes the policy of its own script's response.
ISOLATION = {
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = ISOLATION | {"Content-Security-Policy": POLICY}
SUFFIXES = (".css", ".html", ".js", ".png", ".svg", ".webmanifest")
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}

LAST_PORT = 65_535

Files = dict[str, Path | bytes]


def site_files(model: Path) -> Files:
    """Return the files of the page by their paths below its address.

    `files.js` lists them with size and hash. The service worker reads it: another hash makes a browser fetch a
    file again.

    Raises:
        InputError: If the libraries are not installed, or there is no model, or it lacks a file.
    """
    if not model.is_dir():
        raise InputError(f"{model}: no such directory; name that of a model, such as release/asterisk")
    modules = WEB / "node_modules"
    files: Files = {path.name: path for path in sorted(WEB.iterdir()) if path.suffix in SUFFIXES}
    files |= {f"vendor/{name}": modules / source for name, source in VENDORED.items()}
    files |= {f"model/{name}": model / name for name in MODEL_FILES}
    for path in files.values():
        if isinstance(path, Path) and not path.is_file():
            hint = (
                "run `npm ci --ignore-scripts` in web/; npm comes with Node.js"
                if modules in path.parents
                else "export the model first"
            )
            raise InputError(f"{path}: no such file; {hint}")
    files["vendor/licenses.txt"] = licenses(modules)
    listed = {name: entry(name, content) for name, content in files.items()}
    files["files.js"] = f"self.FILES = {json.dumps(listed)};\nself.HEADERS = {json.dumps(HEADERS)};\n".encode()
    return files


def entry(name: str, content: Path | bytes) -> dict[str, str | int | bool]:
    """Describe a file for `files.js`."""
    if isinstance(content, bytes):
        digest, size = hashlib.sha256(content).hexdigest(), len(content)
    else:
        facts = content.stat()
        digest, size = file_digest(content, facts.st_mtime_ns, facts.st_size), facts.st_size
    return {"hash": digest[:16], "bytes": size, "first": name not in ON_DEMAND}


@cache
def file_digest(path: Path, mtime_ns: int, size: int) -> str:
    """Return the SHA-256 of a file, read anew when its time or size is another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def licenses(modules: Path) -> bytes:
    """Join the licences of the libraries that are served."""
    texts = []
    for package in sorted(
        {source.rpartition("/dist/")[0] or source.split("/")[0] for source in VENDORED.values()}
    ):
        facts = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))
        texts.append(f"{package} {facts['version']}: {facts['license']}, {facts['repository']}")
        for file in sorted((modules / package).glob("[Ll][Ii][Cc][Ee][Nn][Ss][Ee]*")):
            texts.append(file.read_text(encoding="utf-8"))
    return "\n\n".join(texts).encode()


def serve(model: Path, port: int, headers: Mapping[str, str] = HEADERS) -> ThreadingHTTPServer:
    """Return a server of the page on the loopback interface; files are read anew at each request.

    Raises:
        InputError: If the port is taken or none, or a file is missing.
    """
    site_files(model)
    if not 0 <= port <= LAST_PORT:
        raise InputError(f"port {port}: must be from 0 to {LAST_PORT}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
            content = site_files(model).get(name)
            data = (
                content if isinstance(content, bytes) else content.read_bytes() if content else b"no such file\n"
            )
            self.send_response(HTTPStatus.OK if content else HTTPStatus.NOT_FOUND)
            suffix = Path(name).suffix
            kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "text/plain"
            sent = dict(headers) | {"Content-Type": kind, "Content-Length": len(data), "Cache-Control": "no-cache"}
            for header, value in sent.items():
                self.send_header(header, str(value))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # the page was closed
                if self.command == "GET":
                    self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another with --port") from error
