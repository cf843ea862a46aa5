"""``hpstudy best``: the best trial of a study that ran on this machine, for programs."""

from pathlib import Path

import click

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.load import read_manifest
from hpstudy.api.names import stored_study_name
from hpstudy.cli.run import EXIT_FAILED, place_of
from hpstudy.report.best import BEST, FRONT, HYPERPARAMETERS_ENV, documents
from hpstudy.storage.errors import StorageUnreachableError
from hpstudy.storage.opening import open_storage
from hpstudy.storage.reading import read_snapshot


def print_best(manifest: Path, output: Path | None, storage: str | None, *, env: bool) -> int:
    """Print it; returns the exit code.

    Args:
        env: as lines of NAME=value, not as JSON.

    Raises:
        InvalidStudyError: the study has not run there, or has a front and no best trial.
    """
    study = read_manifest(manifest)
    folder, url = place_of(study, output, storage)
    if storage is None and not (folder / "study.db").exists():
        raise InvalidStudyError(
            reasons.STORAGE_UNREACHABLE, f"{folder} holds no study; run it first, or say --output or --storage"
        )
    if env and not study.spec.is_scalar:
        raise InvalidStudyError(
            reasons.INVALID_SPEC, "several objectives have a front and no best trial: take --format json, or scalarize"
        )
    try:
        snapshot = read_snapshot(open_storage(url), stored_study_name(study.metadata), study.spec)
    except StorageUnreachableError as error:
        raise InvalidStudyError(reasons.STORAGE_UNREACHABLE, f"storage: {error}") from None
    found = documents(snapshot, study.spec)
    if not found:
        click.echo("no trial is complete yet", err=True)
        return EXIT_FAILED
    click.echo(found[HYPERPARAMETERS_ENV] if env else found.get(BEST, found.get(FRONT)), nl=False)
    return 0
