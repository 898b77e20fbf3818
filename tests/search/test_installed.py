"""The command from a built wheel, in an environment that has nothing else of this project."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with the wheel; what it needs is found among this environment's packages."""
    directory = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built from a copy: setuptools would leave its own directories in the clone.
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        path = ROOT / name
        if path.is_file() and (path.parent == ROOT or name.startswith(("asterisk/", "release/"))):
            (directory / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / "source" / name).write_bytes((ROOT / name).read_bytes())
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, directory / "source"]
    subprocess.run(wheel, check=True, timeout=300)
    (wheel_file,) = directory.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True, timeout=120)
    python = directory / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel_file], check=True, timeout=300)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory / "venv" / "bin" / "asterisk"


@pytest.mark.slow
def test_installed_command_finds_a_note_with_its_own_model(installed, vault, tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "HF_HUB_OFFLINE": "1",
    }

    def run(*arguments):
        command, options = [installed, *arguments], {"capture_output": True, "text": True, "timeout": 120}
        result = subprocess.run(command, cwd=vault, env=environment, check=False, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert run("index", ".").startswith("4 new; 5 passages")
    assert run("search", "how to add water to the heating").startswith("Boiler.md:7  ")
    assert "asterisk/model" in run("status")
    assert (tmp_path / "share" / "asterisk" / "index.sqlite").is_file()
