"""The list of files that is served and published."""

import os
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest
from conftest import RELEASE, ROOT, refused
from web_pages import listed

from asterisk import web

MODULES = web.WEB / "node_modules"
needs_libraries = pytest.mark.skipif(not MODULES.exists(), reason="no npm on this machine")


def test_policy_in_the_page_is_that_of_the_headers():
    page = (web.WEB / "index.html").read_text(encoding="utf-8")
    assert re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]+)"', page)[1] == web.POLICY


@needs_libraries
def test_every_file_that_the_page_names_is_there_and_is_its_own():
    files = web.site_files(RELEASE)
    for name in files:
        if name.endswith((".js", ".html", ".css", ".webmanifest")) and "/" not in name and name != "files.js":
            text = files[name].read_text(encoding="utf-8")
            assert not re.search(r"https?://(?!www\.w3\.org)", text), name
            for pattern in (r'from "\./([^"]+)"', r'(?:src|href)="([\w./-]+)"', r'Worker\("([^"]+)"'):
                assert set(re.findall(pattern, text)) <= files.keys(), name


@needs_libraries
def test_list_of_files_has_sizes_hashes_and_what_a_first_visit_fetches():
    files = web.site_files(RELEASE)
    entries = listed(files)
    assert entries.keys() == files.keys() - {"files.js"}
    model = entries["model/onnx/model_quantized.onnx"]
    assert model["bytes"] == (RELEASE / "onnx" / "model_quantized.onnx").stat().st_size
    assert [name for name, entry in entries.items() if not entry["first"]] == list(web.ON_DEMAND)
    assert sum(entry["bytes"] for entry in entries.values() if entry["first"]) < 32e6


@needs_libraries
def test_licences_of_all_libraries_are_served():
    text = web.site_files(RELEASE)["vendor/licenses.txt"].decode()
    for package in ("@huggingface/transformers", "onnxruntime-web", "chart.js", "idb", "marked", "umap-js"):
        assert f"{package} " in text


def test_missing_libraries_and_models_are_one_line(run_command, monkeypatch, tmp_path):
    assert "export the model first" in refused(run_command("scripts/serve_web.py", tmp_path, "--port", 0)) or not (
        MODULES.exists()
    )
    message = refused(run_command("scripts/serve_web.py", tmp_path / "none", "--port", 0))
    assert "none: no such directory; name that of a model" in message
    monkeypatch.setattr(web, "WEB", tmp_path)
    message = refused(run_command("scripts/serve_web.py", RELEASE, "--port", 0))
    assert "run `npm ci --ignore-scripts` in web/; npm comes with Node.js" in message


@needs_libraries
def test_port_that_cannot_be_had_is_one_line(run_command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(run_command("scripts/serve_web.py", RELEASE, "--port", port))
    assert message == f"error: port {port}: Address already in use; choose another with --port\n"
    for port in (-1, 65_536):
        message = refused(run_command("scripts/serve_web.py", RELEASE, "--port", port))
        assert message == f"error: port {port}: must be from 0 to 65535\n"


@needs_libraries
def test_python_without_packages_serves_until_it_is_interrupted():
    command = [sys.executable, "-S", "scripts/serve_web.py", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        for method, name, status in (("HEAD", "/", 200), ("GET", "/?a=b", 200), ("GET", "/../README.md", 404)):
            connection.request(method, name)
            response = connection.getresponse()
            body = response.read()
            assert response.status == status
            assert dict(response.headers).items() >= web.HEADERS.items()
            assert len(body) == (0 if method == "HEAD" else int(response.headers["Content-Length"]))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@needs_libraries
def test_changed_file_has_another_hash(tmp_path):
    for name in web.MODEL_FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"before")
    before = listed(web.site_files(tmp_path))
    path.write_bytes(b"behind")
    os.utime(path, ns=(1, 1))
    after = listed(web.site_files(tmp_path))
    assert [name for name in before if before[name] != after[name]] == [f"model/{web.MODEL_FILES[-1]}"]
