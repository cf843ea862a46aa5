"""A user's script under torchrun, with the faults that its environment asks for.

python -m torch.distributed.run --nproc-per-node 2 tests/ranks/search_script.py SCENARIO FOLDER
"""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import optuna
import torch
from transformers import TrainerCallback

from hpstudy import hyperparameter_search
from hpstudy.search import session
from hpstudy.search.ranks import GRACE
from hpstudy.training.isolation import reset
from tests.support.regression import LineConfig, LineModel, trainer

SCENARIO, FOLDER = sys.argv[1], Path(sys.argv[2])
RANK = int(os.environ["RANK"])
RAISED = FOLDER / "raised"
slow: list[bool] = []
"""Whether to clean up slowly next time."""


def say(**words: Any) -> None:
    """For the test to read."""
    with (FOLDER / f"rank-{RANK}.jsonl").open("a") as file:
        file.write(json.dumps(words) + "\n")


def model_init(trial: Any) -> LineModel:
    if trial is None:
        return LineModel(LineConfig())
    b = trial.suggest_int("b", -4, 4)
    a = None if trial.suggest_categorical("random", [True, False, None]) else trial.suggest_float("a", -4, 4)
    model = LineModel(LineConfig(a=a, b=b))
    say(number=trial.number, params=trial.params, start=model.a.item())
    if SCENARIO == "agree" and trial.number == 1:
        raise ValueError("no such model")
    return model


class Faults(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if SCENARIO == "alone" and RANK == 1 and state.global_step == 3 and not RAISED.exists():
            RAISED.write_text(str(time.time()))
            raise ValueError("no luck on rank 1")
        if SCENARIO == "prunes" and RANK == 1 and state.global_step == 3 and not RAISED.exists():
            RAISED.write_text(str(time.time()))
            raise optuna.TrialPruned
        if SCENARIO == "prunes" and state.global_step == 3 and args.output_dir.endswith("run-2"):
            raise optuna.TrialPruned  # on all ranks

        if SCENARIO == "slowly" and state.global_step == 3 and args.output_dir.endswith("run-1"):
            if RANK == 0:  # without a collective, in which it would wait for the other
                time.sleep(GRACE - 1)
            slow.append(True)
            raise ValueError(f"no luck on rank {RANK}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if SCENARIO == "prunes" and RANK == 1 and args.output_dir.endswith("run-1"):
            raise optuna.TrialPruned  # when the other has no more to do
        say(ended=args.output_dir, step=state.global_step, seed=args.seed, batch=args.train_batch_size)


def hp_space(trial: Any) -> dict[str, Any]:
    say(asked=trial.number)
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-2, 1e-1, log=True),
        "per_device_train_batch_size": numpy.int64(trial.suggest_categorical("per_device_train_batch_size", [4, 8])),
        "seed": trial.suggest_int("seed", 1, 40),
    }


def clean_slowly(baseline: Any) -> None:
    time.sleep(3 * len(slow))
    slow.clear()
    reset(baseline)


logging.basicConfig()
if SCENARIO == "slowly":
    session.reset = clean_slowly
say(began=time.time())
torch.set_num_threads(1)
best = hyperparameter_search(
    trainer(
        FOLDER / "output",
        model_init,
        callbacks=[Faults()],
        num_train_epochs=3,
        per_device_eval_batch_size=64,
        use_cpu=SCENARIO != "not a word of CPUs",
    ),
    hp_space=hp_space,
    n_trials=4,
    sampler=optuna.samplers.RandomSampler(seed=3),
    pruner=optuna.pruners.ThresholdPruner(upper=9.0 if SCENARIO == "agree" else None, lower=-1.0),
    storage=f"sqlite:///{FOLDER / 'study.db'}",
    study_name="search",
)
say(best=best._asdict())
