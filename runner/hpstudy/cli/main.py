"""``hpstudy``: the command line. Also ``kubectl hpstudy`` when linked as kubectl-hpstudy.

Heavy imports stay inside the commands, so that ``hpstudy --help`` answers at once.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from hpstudy._version import __version__
from hpstudy.api.names import STORAGE_URL_VARIABLE

_P = ParamSpec("_P")

_MANIFEST = click.Path(exists=False, dir_okay=False, path_type=Path)


def _refusing(command: Callable[_P, int]) -> Callable[_P, None]:
    """Print what the user can correct and exit with 2; exit with what the command returns otherwise."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        from hpstudy.api.errors import InvalidStudyError

        try:
            code = command(*args, **kwargs)
        except InvalidStudyError as error:
            click.echo(f"{error.reason}: {error.message}", err=True)
            code = 2
        sys.exit(code)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Hyperparameter studies of PyTorch and Hugging Face training."""


@main.command()
@click.argument("manifest", type=_MANIFEST)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the study: database, plot, log, trials.  [default: hpstudy-runs/NAME]",
)
@click.option(
    "--storage",
    metavar="URL",
    envvar=STORAGE_URL_VARIABLE,
    show_envvar=True,
    help="Optuna RDB storage; one with a password rather by the variable, as others on this machine see arguments."
    "  [default: SQLite in the output folder]",
)
@_refusing
def run(manifest: Path, output: Path | None, storage: str | None) -> int:
    """Run the study of MANIFEST on this machine; run it again to continue.

    Ctrl-C hands the running trial back and stops. Exit codes: 0 the study succeeded, 1 it failed, 2 it cannot run as
    written, 130 stopped by Ctrl-C.
    """
    from hpstudy.cli.run import run_study

    return run_study(manifest, output, storage)


@main.command()
@click.argument("manifest", type=_MANIFEST)
@_refusing
def validate(manifest: Path) -> int:
    """Check MANIFEST without running it: schema, sampler and pruner with their options."""
    from hpstudy.api.load import read_manifest
    from hpstudy.samplers.build import check_algorithms

    check_algorithms(read_manifest(manifest).spec)
    click.echo(f"{manifest} is valid")
    return 0


@main.command()
@click.argument("manifest", type=_MANIFEST)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="As of run.")
@click.option("--storage", metavar="URL", envvar=STORAGE_URL_VARIABLE, show_envvar=True, help="As of run.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "env"]),
    default="json",
    help="json: number, values, hyperparameters and checkpoint. env: lines for a shell, set -a; . FILE.",
)
@_refusing
def best(manifest: Path, output: Path | None, storage: str | None, form: str) -> int:
    """Print the best trial of the study of MANIFEST that ran on this machine; of several objectives the Pareto front.

    In a cluster the ConfigMap NAME-best has the same.
    """
    from hpstudy.cli.best import print_best

    return print_best(manifest, output, storage, env=form == "env")


@main.command(hidden=True)
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@_refusing
def agent(folder: Path) -> int:
    """Put into FOLDER what a container without anything of ours needs to run the programs of trials."""
    from hpstudy.training.command_agent import install

    install(folder)
    return 0


@main.command(hidden=True)
@click.option("--study", "manifest", type=_MANIFEST, required=True)
@click.option("--group", type=int, default=0)
@click.option("--coordinator", default="", help="host:port of node 0, for groups of several nodes.")
@click.option("--folder", type=click.Path(path_type=Path), default=None)
@click.option("--output", type=click.Path(path_type=Path), default=None)
@click.option("--events", type=int, default=None, help="File descriptor that events are written to.")
@click.option("--gpus", type=int, default=None, help="That the pod holds.  [default: those that torch sees]")
@_refusing
def worker(
    manifest: Path,
    group: int,
    coordinator: str,
    folder: Path | None,
    output: Path | None,
    events: int | None,
    gpus: int | None,
) -> int:
    """The process of a worker pod; started by the operator and by ``hpstudy run``."""
    from hpstudy.api.load import read_manifest
    from hpstudy.api.names import REVISION_VARIABLE, stored_study_name
    from hpstudy.linux import die_with_parent
    from hpstudy.trials.events import Events
    from hpstudy.worker.supervisor import Worker

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr, force=True
    )
    if events is not None:
        die_with_parent(signal.SIGTERM)  # hpstudy run was killed: hand the trial back
    study = read_manifest(manifest)
    return Worker(
        study=study,
        stored_name=stored_study_name(study.metadata),
        storage_url=os.environ[STORAGE_URL_VARIABLE],
        folder=(folder or Path.cwd()).absolute(),
        output=(output or Path("/tmp/hpstudy")).absolute(),  # noqa: S108  the pod's own
        group=group,
        node=int(os.environ.get("JOB_COMPLETION_INDEX", "0")),
        coordinator=coordinator,
        revision=os.environ.get(REVISION_VARIABLE, ""),
        events=Events(events),
        gpus=gpus,
    ).run()


if __name__ == "__main__":
    main()
