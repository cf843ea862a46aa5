"""A user's Trainer script in a worker group, with the faults that its argument asks for.

Its own n_trials is one of many things that the study decides.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpstudy import hyperparameter_search
from tests.support.regression import LineConfig, LineModel, trainer

FOLDER, RANK = Path(os.environ["TEST_FOLDER"]), int(os.environ["RANK"])
scenario = sys.argv[1] if len(sys.argv) > 1 else ""


def first_time(what: str) -> bool:
    """Whether this rank comes here for the first time in the test."""
    file = FOLDER / f"{what}-{RANK}"
    known = file.exists()
    file.write_text(str(os.getpid()))
    return not known


class Faults(TrainerCallback):
    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.output_dir.endswith("-0"):
            (FOLDER / f"steps-{RANK}").write_text(str(state.global_step))
        if scenario == "raises in one trial" and first_time("raised"):
            raise ValueError("no luck in this one")
        if scenario == "killed" and first_time("killed"):
            if RANK == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        if scenario == "slow in the second trial" and args.output_dir.endswith("-1"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(60)
        if scenario == "held":
            (FOLDER / f"held-{RANK}").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.1)
        if scenario == "slow" and first_time("slow"):
            time.sleep(60)


def hp_space(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-2, 1e-1, log=True)}


if scenario == "raises at once":
    raise RuntimeError("nothing works here")
if scenario == "no search":
    sys.exit()
best = hyperparameter_search(
    trainer(
        FOLDER / "mine",
        lambda: LineModel(LineConfig()),
        callbacks=[Faults()],
        num_train_epochs=2,
        use_cpu=scenario != "not a word of CPUs",
    ),
    hp_space=None if scenario == "no space" else hp_space,
    n_trials=50,
)
(FOLDER / f"best-{RANK}").write_text(best.run_id)
if scenario == "raises at the end":
    raise RuntimeError("no space left for the model")
