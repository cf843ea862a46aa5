"""What ``hpstudy run`` prints at the end."""

from pathlib import Path

import optuna
from rich.console import Console
from rich.text import Text

from hpstudy.api.names import stored_study_name
from hpstudy.api.study import Study
from hpstudy.cli.text import format_parameters, format_value, format_values
from hpstudy.report.history import plot_history
from hpstudy.storage import attributes
from hpstudy.storage.reading import StudySnapshot
from hpstudy.trials.budget import Next, Verdict

_TEST_PREFIX = "test_"


def summarise(
    study: Study,
    storage: optuna.storages.RDBStorage,
    snapshot: StudySnapshot,
    verdict: Verdict,
    output: Path,
    url: str,
    console: Console,
) -> None:
    """Print what ended the study and the best trials, draw the plot, and say where everything lies."""
    counts = snapshot.counts
    console.print(
        f"\n{counts.complete} trials complete, {counts.pruned} pruned, {counts.failed} failed, "
        f"{counts.preempted} preempted, {counts.retried} retried"
    )
    if snapshot.sampler:
        console.print(f"[bold]Sampler[/bold]   {snapshot.sampler}", soft_wrap=True)
    if taken := snapshot.warm_start:
        console.print(
            f"[bold]Learnt[/bold]    from {taken.trials} trials of other studies; "
            f"left out: {taken.values_left_out} values out of bounds, {taken.trials_left_out} trials",
            soft_wrap=True,
        )
    if verdict.reason:
        style = "bold red" if verdict.next is Next.FAILED else "bold"
        ended = Text.assemble(("Ended", style), f"     {verdict.message} ({verdict.reason})")
        console.print(ended, soft_wrap=True)
    if not snapshot.best and counts.complete and study.spec.constraints:
        console.print("No trial keeps the constraints.")
    if not snapshot.best:
        console.print(f"Log: {output / 'worker.log'}")
        return
    stored = optuna.load_study(study_name=stored_study_name(study.metadata), storage=storage)
    metrics_of = {
        trial.number: trial.user_attrs.get(attributes.METRICS, {}) for trial in stored.get_trials(deepcopy=False)
    }
    shown = snapshot.best if snapshot.front_size is not None else snapshot.best[:1]
    title = "Best trial" if snapshot.front_size is None else f"Pareto front, {snapshot.front_size} trials"
    if snapshot.hypervolume is not None:
        title += f", hypervolume {format_value(snapshot.hypervolume)}"
    console.print(f"[bold]{title}[/bold]")
    for trial in shown:
        console.print(f"  trial {trial.number}: {format_values(trial.values)}", soft_wrap=True)
        console.print(f"    {format_parameters(trial.hyperparameters)}", soft_wrap=True)
        metrics = metrics_of[trial.number]
        held_out = {name: metrics[name] for name in metrics if name.startswith(_TEST_PREFIX) and _is_score(name)}
        if held_out:
            console.print(f"    on data the study never saw: {format_values(held_out)}", soft_wrap=True)
        if trial.checkpoint:
            here = not trial.checkpoint.startswith("/") or Path(trial.checkpoint).exists()
            console.print(f"    checkpoint {trial.checkpoint}{'' if here else ', which is gone'}", soft_wrap=True)
    plot = plot_history(stored, study.spec, output / "history.png")
    console.print(f"[bold]Plot[/bold]      {plot}", soft_wrap=True)
    database = output / "study.db" if url.startswith("sqlite") else "as given with --storage"
    console.print(f"[bold]Database[/bold]  {database} (any Optuna tool reads it)", soft_wrap=True)
    console.print(f"[bold]Log[/bold]       {output / 'worker.log'}", soft_wrap=True)


def _is_score(name: str) -> bool:
    """Not how fast it was."""
    return not name.endswith(("_runtime", "_per_second", "_loss", "_model_preparation_time"))
