"""``hpstudy run``: one worker group on this machine, watched."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import optuna
from rich.console import Console

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.exits import EXIT_INVALID
from hpstudy.api.load import read_manifest
from hpstudy.api.names import STORAGE_URL_VARIABLE, stored_study_name
from hpstudy.api.study import Study
from hpstudy.cli.display import Display
from hpstudy.cli.summary import summarise
from hpstudy.samplers.build import check_algorithms
from hpstudy.storage.errors import StorageUnreachableError, storage_errors
from hpstudy.storage.locks import SessionLocks
from hpstudy.storage.opening import open_storage, open_study
from hpstudy.storage.reading import read_snapshot
from hpstudy.storage.urls import parse_url
from hpstudy.trials.budget import Next, judge

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_REFUSAL = "refusal.json"


def run_study(manifest: Path, output: Path | None, storage: str | None) -> int:
    """Run the study until it is over or interrupted; returns the exit code.

    Raises:
        InvalidStudyError: the study cannot run as written, or another process runs it.
    """
    study = _local(read_manifest(manifest))
    if study.spec.suspend:
        raise InvalidStudyError(reasons.INVALID_SPEC, "suspend: the study is suspended; set it to false to run it")
    check_algorithms(study.spec)
    output, url = place_of(study, output, storage)
    output.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    opened = _open(study, url)
    name = stored_study_name(study.metadata)
    snapshot = read_snapshot(opened, name, study.spec)
    code, interrupted = 0, False
    if judge(snapshot, study.spec.budget, datetime.now(UTC)).next in (Next.ASK, Next.WAIT):
        with Display(study.spec, name, snapshot, console) as display:
            code, interrupted = _run_worker(study, manifest, output, url, display)
        snapshot = read_snapshot(opened, name, study.spec)
    if code == EXIT_INVALID and (written := output / _REFUSAL).exists():
        refusal = json.loads(written.read_text())
        raise InvalidStudyError(refusal["reason"], refusal["message"])
    verdict = judge(snapshot, study.spec.budget, datetime.now(UTC))
    summarise(study, opened, snapshot, verdict, output, url, console)
    match verdict.next:
        case Next.SUCCEEDED:
            if study.spec.on_success is not None:
                console.print(
                    f"onSuccess makes its Job in clusters; here: [bold]hpstudy best {manifest} --format env[/bold]",
                    soft_wrap=True,
                )
            return 0
        case Next.FAILED:
            return EXIT_FAILED
    again = f"hpstudy run {manifest}"
    if interrupted:
        console.print(f"Stopped. Run [bold]{again}[/bold] again to continue.")
        return EXIT_INTERRUPTED
    console.print(f"[red]The worker ended unexpectedly[/red] (exit code {code}); see {output / 'worker.log'}")
    return EXIT_FAILED


def place_of(study: Study, output: Path | None, storage: str | None) -> tuple[Path, str]:
    """The folder of a study that runs on this machine, and the URL of its storage."""
    folder = (output or Path("hpstudy-runs") / study.metadata.name).absolute()
    return folder, storage or f"sqlite:///{folder / 'study.db'}"


def _local(study: Study) -> Study:
    """One group of one node, whatever the manifest asks of a cluster; with as many trials side by side as there is room
    for, where it does not say how many."""
    workers = study.spec.workers.model_copy(update={"nodes": 1, "template": {}})
    if "trials_per_pod" not in workers.model_fields_set and study.spec.can_pack:
        workers = workers.model_copy(update={"trials_per_pod": "auto"})
    if study.spec.trial.command is not None:
        workers = workers.model_copy(update={"processes_per_node": 1})  # whose auto is one for each GPU
    checkpoints = study.spec.checkpoints and study.spec.checkpoints.model_copy(update={"volume": None})
    spec = study.spec.model_copy(
        update={"workers": workers, "parallelism": 1, "storage": None, "checkpoints": checkpoints}
    )
    metadata = study.metadata.model_copy(update={"uid": ""})
    return study.model_copy(update={"spec": spec, "metadata": metadata})


def _open(study: Study, url: str) -> optuna.storages.RDBStorage:
    """Open storage and study; say what is wrong before anything is started."""
    name = stored_study_name(study.metadata)
    try:
        storage = open_storage(url)
        open_study(storage, name, study.spec)
        text = parse_url(url).render_as_string(hide_password=False)
        with storage_errors(), SessionLocks(text) as locks:
            if not locks.acquire(f"group:{name}:0", wait=False):
                raise InvalidStudyError(
                    reasons.INVALID_SPEC, f"another process is running study {name!r}; stop it or give another --output"
                )
    except StorageUnreachableError as error:
        raise InvalidStudyError(reasons.STORAGE_UNREACHABLE, f"storage: {error}") from None
    return storage


def _run_worker(study: Study, manifest: Path, output: Path, url: str, display: Display) -> tuple[int, bool]:
    """Start the worker and show its events until it ends; returns its exit code and whether Ctrl-C ended it."""
    resolved = output / "study.json"
    resolved.write_text(study.model_dump_json(by_alias=True, exclude_none=True, indent=2))
    (output / _REFUSAL).unlink(missing_ok=True)  # that of an earlier run
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "hpstudy.cli.main", "worker", "--study", str(resolved)]
    command += ["--folder", str(manifest.absolute().parent), "--output", str(output), "--events", str(writer)]
    with (output / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,  # Ctrl-C is for this process, which asks the worker to stop
            env={
                **os.environ,
                STORAGE_URL_VARIABLE: url,
                "HPSTUDY_TERMINATION_LOG": str(output / _REFUSAL),
            },
        )
    os.close(writer)
    with os.fdopen(reader) as events, _interrupting(process, display) as interrupts:
        for event in _events(events):
            display.show(event)
    return process.wait(), bool(interrupts)


def _events(lines: IO[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


@contextmanager
def _interrupting(process: "subprocess.Popen[bytes]", display: Display) -> Iterator[list[int]]:
    """The first Ctrl-C (or SIGTERM) asks the worker to hand its trial back, the second ends it at once."""
    seen: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        seen.append(number)
        if len(seen) == 1:
            display.stopping()
            process.terminate()
        else:
            process.kill()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
