"""The program of a trial in tests of the command form: it knows nothing of HPStudy but variables and files.

program_of_tests.py WHAT X [ARGUMENT ...]
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

WHAT, X = sys.argv[1], float(sys.argv[2])
FOLDER = Path(os.environ["HPSTUDY_OUTPUT_DIR"])
NODE = os.environ.get("NODE_RANK") or os.environ.get("PET_NODE_RANK", "0")


def report(**metrics: float) -> None:
    with Path(os.environ["HPSTUDY_METRICS"]).open("a") as file:
        print(json.dumps(metrics), file=file)


def together() -> None:
    """Node 0 reports, node 1 depends on it, as ranks do."""
    signal.signal(signal.SIGTERM, lambda *_: ((FOLDER / f"stopped-{NODE}").touch(), sys.exit(9)))
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if NODE == "0":
        with socket.create_server(address) as server, server.accept()[0]:
            for step in range(1, 5):
                report(step=step, loss=X + step)
                time.sleep(0.3)
        return
    for _ in range(100):
        try:
            peer = socket.create_connection(address)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    assert os.environ["RANK"] == NODE == "1"
    if peer.recv(1) == b"" and X > 0:
        sys.exit("the peer is gone")


def stubborn() -> None:
    """Does not end when it is told to."""
    signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
    for step in range(1, 4):
        report(step=step, loss=X)
        time.sleep(0.3)
    if X > 0:
        time.sleep(60)


def shows() -> None:
    """What it was given."""
    given = {"argv": sys.argv[3:], "parameters": json.loads(Path(os.environ["HPSTUDY_PARAMETERS"]).read_text())}
    given["variables"] = {name: value for name, value in os.environ.items() if name.startswith(("HPSTUDY_", "MY_"))}
    given["distributed"] = [name for name in ("RANK", "WORLD_SIZE", "MASTER_PORT") if name in os.environ]
    given["folder"] = str(Path.cwd())
    (FOLDER / "given.json").write_text(json.dumps(given))
    print(f"epoch 1: loss={X + 1} f1=0.5", flush=True)
    print(f"epoch 2: loss={X}")


def fails_on_the_last_node() -> None:
    began = Path(os.environ["HPSTUDY_OUTPUT_DIR"], "began")
    if NODE != "0":
        while not began.exists():
            time.sleep(0.01)
        print("loading", flush=True)
        sys.exit("there is no disk left")
    began.write_text(f"{os.getpid()} {os.getpid()}\n")
    time.sleep(60)


def waits() -> None:
    """With a child, until someone ends both."""
    child = subprocess.Popen(["sleep", "60"])
    report(loss=X)
    Path(os.environ["HPSTUDY_OUTPUT_DIR"], "began").write_text(f"{os.getpid()} {child.pid}\n")
    child.wait()


def resumes() -> None:
    """Four steps, the third of the first trial a long one; each is in the checkpoint before it is reported."""
    checkpoint = Path(os.environ["HPSTUDY_CHECKPOINT_DIR"], "step")
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    print(f"from step {done}", flush=True)
    for step in range(done + 1, 5):
        if step == 3 and os.environ["HPSTUDY_TRIAL"] == "0":
            Path(os.environ["HPSTUDY_OUTPUT_DIR"], "began").write_text(f"{os.getpid()} {os.getpid()}\n")
            time.sleep(60)
        checkpoint.write_text(str(step))
        report(loss=X + step)


def lingers() -> None:
    """Two steps, after which the first trial has not ended yet; one that goes on finds nothing left to do."""
    checkpoint = Path(os.environ["HPSTUDY_CHECKPOINT_DIR"], "done")
    if checkpoint.exists():
        return
    checkpoint.touch()
    report(loss=X, f1=0.5)
    report(loss=X / 2)
    Path(os.environ["HPSTUDY_OUTPUT_DIR"], "began").write_text(f"{os.getpid()} {os.getpid()}\n")
    time.sleep(60)


def saves_when_told() -> None:
    """Counts; saves when it gets SIGTERM, after which it says no more. One that goes on ends at once."""
    checkpoint = Path(os.environ["HPSTUDY_CHECKPOINT_DIR"], "step")
    if checkpoint.exists():
        report(step=99, loss=float(checkpoint.read_text()))
        return
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    for step in range(1, 10**6):
        if step == 5:
            Path(os.environ["HPSTUDY_OUTPUT_DIR"], "began").write_text(f"{os.getpid()} {os.getpid()}\n")
        time.sleep(0.05)
        if told:
            checkpoint.write_text(str(step))
            sys.exit(1)


globals()[WHAT]()
