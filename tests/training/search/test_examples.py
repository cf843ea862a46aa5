"""The examples run as their first lines say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY

_LIMIT = 300  # seconds: one that hangs


@pytest.mark.parametrize("backend", ["optuna", "ray", "wandb", "sigopt"])
def test_an_example_finds_its_best_run(backend: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "SIGOPT_"))}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / f"search_{backend}.py")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    best = done.stdout.strip().splitlines()[-1]
    assert best.startswith("BestRun(run_id=")
    assert "'learning_rate': 0.0" in best
    assert "'per_device_train_batch_size': " in best
