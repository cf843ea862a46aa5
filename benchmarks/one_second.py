"""python one_second.py: one trial of a second, after the imports of any training. For cluster.py, which mounts it.

As a study it is ``trial: {function: one_second:objective}``; the worker group imports it once. Run as a program it is
what a plain Job does for each trial.
"""

import time
from types import SimpleNamespace
from typing import Any

import torch  # noqa: F401  what training imports
from transformers import Trainer, TrainingArguments  # noqa: F401

SECONDS = 1.0


def objective(trial: Any) -> float:
    """Train for a second, so to speak."""
    time.sleep(SECONDS)
    return float((trial.params["x"] - 0.3) ** 2)


if __name__ == "__main__":
    print(objective(SimpleNamespace(params={"x": 0.5})))
