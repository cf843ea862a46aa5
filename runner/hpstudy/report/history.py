"""The plot of a study: values over trials, or the Pareto front."""

from pathlib import Path

import matplotlib
import optuna
from optuna.trial import TrialState

from hpstudy.api.study import StudySpec
from hpstudy.storage.pareto import pareto_front

matplotlib.use("agg")  # a file, no window

_COLOURS = {"trial": "#6b7fa3", "best": "#c2410c"}


def plot_history(study: optuna.Study, spec: StudySpec, path: Path) -> Path:
    """Draw the complete trials into a PNG: one objective over trial numbers with the best so far, or the first two
    objectives against each other with the front. Returns the path."""
    from matplotlib.figure import Figure

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    values = [trial.values for trial in trials]
    directions = [objective.direction for objective in spec.objectives]
    if len(spec.objectives) == 1:
        better = max if directions[0] == "maximize" else min
        numbers = [trial.number for trial in trials]
        series = [value[0] for value in values]
        best = [better(series[: index + 1]) for index in range(len(series))]
        axes.scatter(numbers, series, color=_COLOURS["trial"], label="trial")
        axes.step(numbers, best, where="post", color=_COLOURS["best"], label="best so far")
        axes.set(xlabel="trial", ylabel=spec.objectives[0].metric)
    else:
        front = pareto_front(values, directions)
        axes.scatter([v[0] for v in values], [v[1] for v in values], color=_COLOURS["trial"], label="trial")
        axes.plot(
            [values[i][0] for i in front], [values[i][1] for i in front], "o-", color=_COLOURS["best"], label="front"
        )
        axes.set(xlabel=spec.objectives[0].metric, ylabel=spec.objectives[1].metric)
    axes.set_title(study.study_name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path
