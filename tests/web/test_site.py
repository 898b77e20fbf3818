"""The list of files that is served and published."""

import json
import re

import pytest
from conftest import RELEASE, refused

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
    listed = json.loads(files["files.js"].decode().partition(" = ")[2].partition(";\n")[0])
    assert listed.keys() == files.keys() - {"files.js"}
    model = listed["model/onnx/model_quantized.onnx"]
    assert model["bytes"] == (RELEASE / "onnx" / "model_quantized.onnx").stat().st_size
    assert [name for name, entry in listed.items() if not entry["first"]] == list(web.ON_DEMAND)
    assert sum(entry["bytes"] for entry in listed.values() if entry["first"]) < 30e6


@needs_libraries
def test_licences_of_all_libraries_are_served():
    text = web.site_files(RELEASE)["vendor/licenses.txt"].decode()
    for package in ("@huggingface/transformers", "onnxruntime-web", "chart.js", "idb", "marked", "umap-js"):
        assert f"{package} " in text


def test_missing_libraries_and_models_are_one_line(run_command, monkeypatch, tmp_path):
    assert "export the model first" in refused(run_command("scripts/serve_web.py", tmp_path, "--port", 0)) or not (
        MODULES.exists()
    )
    monkeypatch.setattr(web, "WEB", tmp_path)
    message = refused(run_command("scripts/serve_web.py", RELEASE, "--port", 0))
    assert "run `npm ci --ignore-scripts` in web/" in message
