"""The wheel holds the whole tree, and only that; the folders refuse to be imported under their own names."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reference", "gpu", "theory", "cli", "tutorials")


def tree() -> set[str]:
    """Every file that belongs into the wheel, as its path inside the wheel."""
    return {
        f"loadsparse/{path.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {str(Path(name).parent).replace("/", ".") for name in tree() if name.endswith(".py")}
    assert set(listed) >= found
    assert len(listed) == len(set(listed))
    assert all((ROOT / name.removeprefix("loadsparse.").replace(".", "/")).is_dir() for name in listed)


def test_wheel_equals_tree(tmp_path: Path) -> None:
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # holds what was deleted since the last build
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tree()


@pytest.mark.parametrize("package", PACKAGES)
def test_folder_name_is_refused(package: str) -> None:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {package}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"this folder is the package loadsparse.{package}" in result.stderr


def test_reference_needs_numpy_only() -> None:
    """An oracle that shares code with what it judges judges nothing."""
    code = (
        "import sys, pkgutil, importlib, loadsparse.reference as r\n"
        "for m in pkgutil.walk_packages(r.__path__, 'loadsparse.reference.'): importlib.import_module(m.name)\n"
        "bad = {'scipy', 'numba', 'llvmlite', 'lark', 'loadsparse.gpu', 'loadsparse.theory', 'typer'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_simulator_parses_and_interprets_without_a_compiler() -> None:
    code = (
        "import sys\n"
        "for name in ('numba', 'llvmlite', 'scipy'): sys.modules[name] = None\n"
        "import loadsparse.gpu.simulator, loadsparse.gpu.simulator.interpreter\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
