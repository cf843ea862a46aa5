"""What HPStudy records beside Optuna's own columns: user attributes of trials and studies."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

PREFIX = "hpstudy:"

GROUP = PREFIX + "group"
"""Index of the worker group that holds, or held, the trial."""
GPUS = PREFIX + "gpus"
"""On a trial of a worker group with GPUs: how many it holds, a share of them where trials share a pod."""
FAILURE = PREFIX + "failure"
"""The :class:`Failure` of a trial that ended FAIL."""
MESSAGE = PREFIX + "message"
"""Why it failed, for people."""
RUNS = PREFIX + "runs"
"""On a trial that runs the parameters of failed trials again: the numbers of those, the newest last."""
CONTINUES = PREFIX + "continues"
"""On a trial that starts from the last checkpoint of another, where there is one: the number of that."""
ALONE = PREFIX + "alone"
"""On a trial that runs the parameters of one again whose pod ran out of memory with others in it: true. It has a pod to
itself, and so it will be known which of them needed too much."""
AGAIN = PREFIX + "again"
"""On a trial that ended FAIL while its class had retries left: true."""
POPULATION = PREFIX + "population"
"""On a trial that carries on another of population based training: which member of the population it is (the number of
that one's first trial), the time and score that it starts with, and the number of the trial before it."""
NEXT = PREFIX + "next"
"""On a trial of population based training that ends for another to carry on: what that one starts with."""
CHECKPOINT = PREFIX + "checkpoint"
"""On a trial that ended with a checkpoint: where that is."""
INITIAL = PREFIX + "initial"
"""On a trial of ``initialTrials``: its place there."""
TAKEN_FROM = PREFIX + "taken-from"
"""On a trial of ``warmStartFrom``: name and number that it had there. Samplers learn from it; it counts for nothing."""
METRICS = PREFIX + "metrics"
"""All metrics of the trial by name, the ones that are not optimised among them."""
SPEC = PREFIX + "spec"
"""On the study: the part of the spec that its trials depend on."""
TRIAL = PREFIX + "trial"
"""On the study: what its trials are."""
METRIC_NAMES = PREFIX + "metric-names"
"""On the study: metrics of the objectives, in order."""
STOPPED = PREFIX + "stopped"
"""On a study that is over before its budget is: reason and message, as of a condition."""
LIMIT = PREFIX + "limit"
"""On a study whose time or GPU hours are used up: the reason, and the limit that it was."""
SEEDED = PREFIX + "seeded"
"""On a study whose initial trials are queued, and to which the trials of others were added."""
SAMPLER = PREFIX + "sampler"
"""On a study whose sampler was chosen for it: name, and why."""
SETTINGS = PREFIX + "settings"
"""On a study that an operator looks after: what its workers should know now."""
BELL = PREFIX + "bell"
"""On such a study: the word with which the database tells that a trial of it began or ended (storage/bell.py)."""
ENDED_PREFIX = PREFIX + "ended:"
"""On such a study, with the index of a worker group: how the latest of its pods to end did so."""
WANDB_SWEEP = PREFIX + "wandb-sweep"
"""On a study that is a sweep on a W&B server: where it is there."""
WANDB_RUN = PREFIX + "wandb-run"
"""On a trial that such a server shows: the id of its run."""
SIGOPT_EXPERIMENT = PREFIX + "sigopt-experiment"
"""On a study that is an experiment on a SigOpt server: its id there, and a digest of what that was made of."""
SIGOPT_SUGGESTION = PREFIX + "sigopt-suggestion"
"""On a trial that such a server suggested: ids of experiment and suggestion."""

CONSTRAINT_PREFIX = "constraints:"
"""Optuna's own, of a trial's system attributes (``Trial.set_constraint``): a value above 0 is a broken constraint."""
FIXED = "fixed_params"
"""Optuna's own, of the system attributes of a trial that was enqueued with values: these."""
CV_SCORES = "terminator:cv_scores"
"""Optuna's own, of a trial's system attributes (``report_cross_validation_scores``)."""


class Failure(StrEnum):
    """Why a trial ended without values."""

    ERROR = "error"
    """The trial raised, or one of its processes ended by itself."""
    OOM = "oom"
    """It ran out of memory: the GPU's, or its container's limit."""
    METRIC_MISSING = "metric-missing"
    """It ended well, without the metric of an objective, or with one that is no finite number."""
    TIMEOUT = "timeout"
    """It took longer than ``trialTimeout``."""
    PREEMPTED = "preempted"
    """Its worker was told to stop."""
    LOST = "lost"
    """Its worker is gone."""
    SUSPENDED = "suspended"
    """Its worker was told to stop because the study is suspended or changed: somebody wanted it, so that it runs again
    however often that happens."""


WORKER_ENDED = frozenset({Failure.PREEMPTED, Failure.LOST, Failure.SUSPENDED})
"""No fault of the trial: one that runs again counts as preempted."""


def runs_again(attributes: Mapping[str, Any]) -> bool:
    """Whether the trial with these user attributes is no answer to its parameters, because another runs them: it counts
    as preempted or retried, never as failed, and samplers leave it out."""
    return bool(attributes.get(AGAIN))


def first_run(number: int, attributes: Mapping[str, Any]) -> int:
    """Number of the trial whose parameters the one of this number, with these user attributes, runs again; else its
    own."""
    runs = attributes.get(RUNS)
    return int(runs[0]) if runs else number
