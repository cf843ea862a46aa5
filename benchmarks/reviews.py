"""The quickstart's study, to be changed and run by ``hpstudy run``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
MANIFEST = REPOSITORY / "examples" / "reviews.yaml"


def read_reviews() -> dict[str, Any]:
    """Its manifest, for any folder: the data's path is absolute."""
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    dataset = manifest["spec"]["trial"]["transformers"]["dataset"]
    dataset["csv"] = str(MANIFEST.parent / dataset["csv"])
    return manifest


def run_command(manifest: dict[str, Any], folder: str) -> tuple[list[str], str]:
    """What runs a study, with all its files in a folder, and the URL of the storage that it will write."""
    path = Path(folder, "study.yaml")
    path.write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "hpstudy.cli.main", "run", str(path), "--output", folder]
    return command, f"sqlite:///{folder}/study.db"


def run_study(manifest: dict[str, Any], folder: str) -> str:
    """Run a study to its end; returns the URL of its storage.

    Raises:
        RuntimeError: it failed; with its output.
    """
    command, url = run_command(manifest, folder)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return url
