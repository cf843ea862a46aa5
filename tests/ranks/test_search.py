"""hyperparameter_search under torchrun: what one rank decides or suffers, all of them do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpstudy.search.options import Options
from hpstudy.search.plan import Plan
from hpstudy.search.results import log_end
from hpstudy.storage import attributes
from hpstudy.trials.assignment import Assignment
from hpstudy.trials.loop import TrialLoop
from hpstudy.trials.outcome import conclude
from tests.support.builders import spec
from tests.support.processes import REPOSITORY

_LIMIT = 240  # seconds: a search that hangs


def torchrun(
    scenario: str, folder: Path, ranks: int = 2, options: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]
    script = REPOSITORY / "tests" / "ranks" / "search_script.py"
    return subprocess.run(
        [*command, str(script), scenario, str(folder)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:]])}
        | variables,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )


def said(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"rank-{rank}.jsonl").read_text().splitlines()]


def trials(folder: Path) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    try:
        return optuna.load_study(study_name="search", storage=storage).trials
    finally:
        storage.engine.dispose()


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_agree_on_suggestions_prunes_and_failures(tmp_path: Path, ranks: int) -> None:
    done = torchrun("agree", tmp_path, ranks=ranks)
    assert done.returncode == 0, done.stderr[-4000:]
    zero, *others = (said(tmp_path, rank) for rank in range(ranks))
    one = others[-1]

    # hp_space runs once for a trial, on rank zero; everything else is the same on all.
    asked = [words["asked"] for words in zero if "asked" in words]
    assert asked == list(range(5))
    for other in others:
        said_by = [[words for words in rank if not words.keys() & {"asked", "began"}] for rank in (zero, other)]
        assert said_by[0] == said_by[1]
    models = [words for words in one if "params" in words]
    stored = trials(tmp_path)
    assert [words["params"] for words in models] == [trial.params for trial in stored]

    # Trial 1 raised on all ranks: it failed, and the search went on.
    states = [trial.state for trial in stored]
    assert states[1] is TrialState.FAIL
    assert stored[1].user_attrs[attributes.MESSAGE] == "ValueError: no such model"
    assert states.count(TrialState.FAIL) == 1
    assert TrialState.PRUNED in states
    assert TrialState.COMPLETE in states
    ended = {Path(words["ended"]).name: words for words in one if "ended" in words}
    for trial in stored:
        if trial.state is not TrialState.FAIL:
            words = ended[f"run-{trial.number}"]
            batch = trial.params["per_device_train_batch_size"]
            assert words["seed"] == trial.params["seed"]
            assert words["batch"] == batch
            steps = len(trial.intermediate_values) * 64 // (ranks * batch)
            assert words["step"] == steps
    best = one[-1]["best"]
    assert best["objective"] == min(trial.value for trial in stored if trial.state is TrialState.COMPLETE)
    # The best of a trial's evaluations counts, not its last.
    for trial in stored:
        if trial.state is TrialState.COMPLETE:
            assert trial.value == min(trial.intermediate_values.values())


def test_ranks_that_the_trainer_takes_for_strangers_are_told_what_to_change(tmp_path: Path) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    done = torchrun("not a word of CPUs", tmp_path, **hidden)
    assert done.returncode != 0
    assert "there are 2 processes, and the Trainer takes each for itself; on CPUs, give" in done.stderr
    assert not (tmp_path / "study.db").exists()
    done = torchrun("not a word of CPUs", tmp_path, ACCELERATE_USE_CPU="true", **hidden)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [words["step"] for words in said(tmp_path, 1) if words.get("ended")]
    assert len(trials(tmp_path)) == 4


def test_a_rank_that_raises_alone_ends_all_and_the_search_continues(tmp_path: Path) -> None:
    done = torchrun("alone", tmp_path)
    left = time.time()
    assert done.returncode != 0
    assert left - float((tmp_path / "raised").read_text()) < 30  # one of them out of a collective
    (failed,) = trials(tmp_path)
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs[attributes.MESSAGE] == "ValueError: no luck on rank 1"
    assert failed.user_attrs[attributes.FAILURE] == "error"

    done = torchrun("alone", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    first, *rest = trials(tmp_path)
    assert first == failed
    assert len(rest) == 4
    assert {trial.state for trial in rest} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert said(tmp_path, 0)[-1]["best"] == said(tmp_path, 1)[-1]["best"]


def test_ranks_that_fail_one_after_the_other_may_take_their_time_to_clean_up(tmp_path: Path) -> None:
    done = torchrun("slowly", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    first, failed, *rest = trials(tmp_path)
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs[attributes.MESSAGE] == "ValueError: no luck on rank 1"
    assert [trial.state for trial in (first, *rest)] == [TrialState.COMPLETE] * 4


def test_a_rank_that_prunes_alone_is_a_failure_that_says_so(tmp_path: Path) -> None:
    done = torchrun("prunes", tmp_path)
    left = time.time()
    assert done.returncode != 0
    assert left - float((tmp_path / "raised").read_text()) < 30  # one of them out of a collective
    (failed,) = trials(tmp_path)
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs[attributes.MESSAGE].startswith("rank 1 raised TrialPruned, and others train on")

    # In trial 1 no rank waits for the one that prunes alone, in trial 2 all of them prune.
    done = torchrun("prunes", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    _, alone, together, *rest = trials(tmp_path)
    assert alone.state is TrialState.FAIL
    assert alone.user_attrs[attributes.MESSAGE] == failed.user_attrs[attributes.MESSAGE]
    assert together.state is TrialState.PRUNED
    assert [trial.state for trial in rest] == [TrialState.COMPLETE] * 3


def test_torchrun_itself_starts_the_search_again(tmp_path: Path) -> None:
    """As docs/search.md says: with a store of their own for the new processes."""
    done = torchrun("alone", tmp_path, options=["--max-restarts=1"], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    assert done.returncode == 0, done.stderr[-4000:]
    first, *rest = trials(tmp_path)
    assert first.user_attrs[attributes.MESSAGE] == "ValueError: no luck on rank 1"
    assert len(rest) == 4
    assert {trial.state for trial in rest} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert said(tmp_path, 0)[-1]["best"] == said(tmp_path, 1)[-1]["best"]


def test_the_end_is_told_of_a_trial_of_a_study_that_hides_some_that_it_began_with(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a script in a worker group: its space has a parameter that the source has not, and its sampler is shown
    whole trials only."""
    script = {"script": {"path": "train.py"}}
    with TrialLoop(spec(trial=script), url, "small") as loop:
        small = loop.next()
        assert isinstance(small, Assignment)
        loop.tell(small, conclude({"loss": 1.0}, spec()))
    bounds = {"type": "float", "low": -2, "high": 2}
    wider = {"searchSpace": {"parameters": {"x": bounds, "y": bounds}}, "warmStartFrom": [{"study": "small"}]}
    study = spec(trial=script, sampler={"name": "RandomSampler"}, **wider)
    plan = Plan(study, url, "wide", Options(), compute=lambda metrics: {}, output_dir="")
    monkeypatch.setattr(optuna.logging.get_logger("optuna"), "propagate", True)
    with TrialLoop(study, url, "wide") as loop, caplog.at_level("INFO", "optuna"):
        trial = loop.next()
        assert isinstance(trial, Assignment)
        assert trial.number == 1
        loop.tell(trial, conclude({"loss": 3.0}, study))
        log_end(loop.study, plan, trial.number, "")
    assert f"Trial 1 finished with value: 3.0 and parameters: {trial.parameters}. Best is trial 1" in caplog.text
