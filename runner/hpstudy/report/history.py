"""The plot of a study: values over trials, or the Pareto front."""

import itertools
from pathlib import Path

import matplotlib
import optuna
from optuna.trial import TrialState

from hpstudy.api.study import StudySpec
from hpstudy.storage import attributes
from hpstudy.storage.feasible import is_feasible
from hpstudy.storage.pareto import pareto_front

matplotlib.use("agg")  # a file, no window

_COLOURS = {"trial": "#6b7fa3", "best": "#c2410c"}


def plot_history(study: optuna.Study, spec: StudySpec, path: Path) -> Path:
    """Draw the study's own complete trials into a PNG: one objective over trial numbers with the best so far, or the
    first two objectives against each other with the front; a trial beyond a constraint is hollow, and never the best.
    Returns the path."""
    from matplotlib.figure import Figure

    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if attributes.TAKEN_FROM not in trial.user_attrs
    ]
    kept = [trial for trial in trials if is_feasible(trial)]
    beyond = [trial for trial in trials if not is_feasible(trial)]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    single = len(spec.objectives) == 1
    for group, face, label in ((kept, _COLOURS["trial"], "trial"), (beyond, "none", "beyond a constraint")):
        if group:
            across = [trial.number if single else trial.values[0] for trial in group]
            up = [trial.values[0 if single else 1] for trial in group]
            axes.scatter(across, up, facecolors=face, edgecolors=_COLOURS["trial"], label=label)
    if single:
        better = max if spec.objectives[0].direction == "maximize" else min
        best = list(itertools.accumulate((trial.values[0] for trial in kept), better))
        axes.step([trial.number for trial in kept], best, where="post", color=_COLOURS["best"], label="best so far")
        axes.set(xlabel="trial", ylabel=spec.objectives[0].metric)
    else:
        values = [trial.values for trial in kept]
        front = pareto_front(values, [objective.direction for objective in spec.objectives])
        axes.plot(
            [values[i][0] for i in front], [values[i][1] for i in front], "o-", color=_COLOURS["best"], label="front"
        )
        axes.set(xlabel=spec.objectives[0].metric, ylabel=spec.objectives[1].metric)
    axes.set_title(study.study_name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path
