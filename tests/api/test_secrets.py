"""No secret value leaves the Secrets: not in an object, a log, what a worker says, or a process list.

Each study has a storage of its own whose password is the marked one, good or bad; real workers run, raise and cannot
connect with it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.api.harness import Operator, Team, eventually, study
from tests.support.postgres import Postgres
from tests.support.processes import free_port, start, stop

MARK = "m4rk3d-p4ssw0rd"
PATIENCE = 300
"""Seconds for a worker, who imports torch first."""
CODE = """
def objective(trial):
    if trial.number == 1:
        raise RuntimeError("the second one breaks")
    return trial.params["lr"]
"""


@pytest.fixture
def storages(served: Team, database: Postgres) -> Iterator[dict[str, str]]:
    """Secrets by name, with the URL of each."""
    database.sql(f"create role marked login password '{MARK}'")
    database.sql("create database marked owner marked")
    good = database.url("marked", "marked", MARK)
    urls = {
        "good": good,
        "refused": database.url("marked", "postgres", MARK),
        "unreachable": good.replace(f":{database.port}/", f":{free_port()}/"),
        "malformed": good.replace(f":{database.port}/", ":port/"),
    }
    for name, url in urls.items():
        data = {"url": b64encode(url.encode()).decode()}
        served.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})
    yield urls
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'marked'")
    database.sql("drop database marked with (force)")
    database.sql("drop role marked")


@contextlib.contextmanager
def worker(served: Team, name: str, url: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """The worker of a study's pod as the kubelet would start it, and its output."""
    container = served.pods(f"{name}-0")[0]["spec"]["containers"][0]
    config = eventually(lambda: served.api.find("configmaps", served.namespace, f"{name}-study"), "the ConfigMap")
    manifest = folder / f"{name}.json"
    manifest.write_text(config["data"]["study.json"])
    arguments = [str(manifest) if each == "/etc/hpstudy/study.json" else each for each in container["args"]]
    program = Path(sys.executable).with_name("hpstudy")
    where = [f"--folder={folder}", f"--output={folder / name}"]
    output, words = folder / f"{name}.log", folder / f"{name}.words"
    environment = {"HPSTUDY_STORAGE_URL": url, "HPSTUDY_TERMINATION_LOG": str(words)}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        running = start([program, *arguments, *where], output)
    try:
        yield running, output
    finally:
        stop(running, signal.SIGKILL)


def await_word(word: str, output: Path, running: "subprocess.Popen[bytes]") -> None:
    """Until the worker says it."""
    deadline = time.monotonic() + PATIENCE
    while word not in output.read_text():
        assert running.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)


def process_list() -> str:
    """All command lines of this machine, as ps shows them to everybody."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if int(path.parent.name) != os.getpid():
                lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def test_passwords_stay_in_their_secrets(
    served: Team, operator: Operator, storages: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(CODE)
    own = {"budget": {"maxTrials": 3, "maxFailedTrials": 1}}
    for name in storages:
        served.apply(study(name, storage={"secretRef": {"name": name}}, **own))
    served.apply(study("tenant", **own))
    tenants = str(make_url(served.secret()).password)
    served.until("StorageReady", "True", name="good")
    for name in ("refused", "unreachable", "malformed"):
        served.until("StorageReady", "False", "StorageUnreachable", name=name)

    said = [process_list()]
    with worker(served, "good", storages["good"], tmp_path) as (running, output):
        await_word("hpstudy end", output, running)
        said.append(process_list())
        assert running.wait(PATIENCE) == 0
        said.append(output.read_text())
    assert "the second one breaks" in said[-1]
    # It has lost its database; what it says then is what the pod's termination message shows.
    with worker(served, "good", storages["unreachable"], tmp_path) as (running, output):
        await_word("trying again", output, running)
        said += [process_list(), output.read_text()]
    with worker(served, "good", storages["malformed"], tmp_path) as (running, output):
        assert running.wait(PATIENCE) != 0
        said.append(output.read_text())
    served.end_pods(1, "".join(said[-2:])[-2048:], "good-0")
    served.poke("good")
    served.until("Succeeded", "True", name="good")

    kinds = "hpstudies,jobs,pods,services,configmaps,events,serviceaccounts,controllerrevisions"
    said += [served.kubectl("get", kinds, "-o", "json", "--show-managed-fields"), operator.log.read_text()]
    said += [path.read_text() for path in tmp_path.glob("*.words")]
    assert "unreachable" in said[-2] or "unreachable" in said[-3]  # it is the right dump
    secrets = [MARK, tenants, *(b64encode(url.encode()).decode() for url in storages.values())]
    found = [
        (secret, text[max(0, text.find(secret) - 200) :][:400]) for text in said for secret in secrets if secret in text
    ]
    assert json.dumps(found, indent=1) == "[]"
