"""hyperparameter_search under torchrun with a Trainer that shards (see tests.support.sharding)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks.test_search import trials
from tests.support.processes import REPOSITORY
from tests.support.sharding import DEEPSPEED

ENGINES = {
    "FSDP": "FSDPBertForSequenceClassification",
    "ZeRO-2": "DeepSpeedEngine",
    "ZeRO-3": "DeepSpeedEngine",
}


@pytest.mark.parametrize("kind", ENGINES)
def test_each_trial_is_sharded_and_the_trainer_after_them(tmp_path: Path, kind: str) -> None:
    """Trial after trial in the same processes, one of which fails, and all that train give the same."""
    script = REPOSITORY / "tests" / "ranks" / "sharded_search_script.py"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, kind, tmp_path],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:], str(DEEPSPEED)])},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    values = [trial.value for trial in trials(tmp_path) if trial.value is not None]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    words = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert words[0] == words[1]
    assert words[0]["best"] == min(values)
    assert words[0]["names"] == [ENGINES[kind]] * 4
