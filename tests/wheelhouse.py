"""Fill a folder with every wheel that an offline install needs, prove that it does, and say how large each extra is.

    make wheelhouse            fills wheelhouse/ for this platform and Python (EXTRAS=nvidia,test chooses extras)

Elsewhere, without a network: python -m pip install --no-index --find-links wheelhouse "loadsparse[tutorials]"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def fill(folder: Path, extras: list[str]) -> None:
    """The project's wheel and those of its dependencies, in the versions of constraints.txt."""
    wanted = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    subprocess.run([*PIP, "wheel", "-w", folder, "-c", ROOT / "constraints.txt", wanted], check=True)


def sizes(folder: Path, extra: str) -> tuple[int, int, int]:
    """(wheels, bytes to download, bytes installed) of a fresh install with one extra ("" is without any)."""
    name = f"loadsparse[{extra}]" if extra else "loadsparse"
    options = ["--dry-run", "--ignore-installed", "--no-index", "--find-links", str(folder), "--report", "-"]
    told = subprocess.run([*PIP, "install", *options, name], check=True, capture_output=True, text=True).stdout
    wheels = [folder / item["download_info"]["url"].rpartition("/")[2] for item in json.loads(told)["install"]]
    installed = 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            installed += sum(member.file_size for member in archive.infolist())
    return len(wheels), sum(wheel.stat().st_size for wheel in wheels), installed


def prove(folder: Path) -> None:
    """Install into an empty environment with no index, and verify a kernel from an empty folder."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(Path(place) / "env", with_pip=True)
        python = Path(place) / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        install = ["-m", "pip", "--quiet", "install", "--no-index", "--find-links", str(folder.resolve()), "loadsparse"]
        subprocess.run([python, *install], check=True)
        verify = ["-m", "loadsparse.cli.main", "verify", "lscd", "--shape", "64,8,64", "--plain"]
        subprocess.run([python, *verify], check=True, cwd=place)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fill, prove and measure a folder of wheels for an offline install.")
    parser.add_argument("--folder", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--extras", default="nvidia,tutorials", help="with commas; default: nvidia,tutorials")
    chosen = parser.parse_args(words)
    extras = [extra for extra in chosen.extras.split(",") if extra]
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if unknown := set(extras) - set(known):
        parser.error(f"unknown extra {', '.join(sorted(unknown))}: known are {', '.join(known)}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    fill(chosen.folder, extras)
    print(f"{'extra':12}{'wheels':>8}{'download MB':>14}{'installed MB':>14}")
    for extra in ["", *extras]:
        count, download, installed = sizes(chosen.folder, extra)
        print(f"{extra or '(none)':12}{count:8}{download / 1e6:14.0f}{installed / 1e6:14.0f}")
    prove(chosen.folder)
    print(f"installed from {chosen.folder} with no index into an empty environment, and verified a kernel there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
