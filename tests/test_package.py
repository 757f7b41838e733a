"""What is built is what can be installed: wheel and sdist, without a network, and used from outside of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*words: object, cwd: Path, **env: str) -> str:
    """Run a command; return what it said."""
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it, as an index builds it."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d"]
    run(*build, out, "-t", "sdist", cwd=ROOT)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out / "source", filter="data")
    (source,) = (out / "source").iterdir()
    run(*build, out, "-t", "wheel", cwd=source)
    return out


def test_the_wheel_holds_all_that_the_package_reads(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("hintseg/")}
    kept = {
        f"hintseg/{file.relative_to(ROOT / 'src' / 'hintseg').as_posix()}"
        for file in (ROOT / "src" / "hintseg").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert inside == kept
    assert "hintseg/py.typed" in inside


def test_the_sdist_can_be_tested_and_documented(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"tests/conftest.py", "docs/make.py", "docs/index.md", "mkdocs.yml", "Makefile", "CHANGELOG.md", "LICENSE"}
    assert wanted <= names


def test_what_was_installed_works_elsewhere(built: Path, tmp_path: Path) -> None:
    """Without its dependencies, which are there; in a folder of its own, which comes first."""
    (wheel,) = built.glob("*.whl")
    place = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    run(*install, "--target", place, wheel, cwd=tmp_path)
    env = {"PYTHONPATH": str(place), "HOME": str(tmp_path)}
    code = "import hintseg; print(hintseg.__file__, hintseg.__version__)"
    file, version = run(sys.executable, "-c", code, cwd=tmp_path, **env).split()
    assert Path(file).is_relative_to(place)
    assert version in wheel.name
    assert run(sys.executable, "-m", "hintseg", "list", "recipes", cwd=tmp_path, **env).startswith("afa ")
    draw = (
        "import pathlib; from hintseg.data import shapes; shapes.write_shapes(pathlib.Path('photos'), train=3, val=1)"
    )
    run(sys.executable, "-c", draw, cwd=tmp_path, **env)
    said = run(sys.executable, "-m", "hintseg", "check", "photos", cwd=tmp_path, **env)
    assert "4 photos, 6 classes" in said
