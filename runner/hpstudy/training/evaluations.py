"""The evaluations of a trial: which one counts, and at which step it is recorded."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import IntervalStrategy, TrainerState, TrainingArguments

from hpstudy.api.metrics import find_metric
from hpstudy.api.objectives import Objective


def improves(metrics: Mapping[str, Any], chosen: Mapping[str, Any] | None, objective: Objective) -> bool:
    """Whether an evaluation is better than the one that counts so far; of equals the earlier one counts."""
    if chosen is None:
        return True
    new, old = (find_metric(each, objective.metric) for each in (metrics, chosen))
    if new is None or old is None or math.isnan(new):
        return False
    return math.isnan(old) or (new > old if objective.direction == "maximize" else new < old)


def evaluation_step(args: TrainingArguments, state: TrainerState) -> int:
    """Epochs where there are such: a pruner compares trials step by step, and batch sizes differ."""
    by_epoch = args.eval_strategy == IntervalStrategy.EPOCH
    return math.ceil(state.epoch or 0) if by_epoch else state.global_step
