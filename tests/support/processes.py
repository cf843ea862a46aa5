"""Servers that tests start and that never outlive them."""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: A server that is not up by then is not coming: on a busy two-core machine they need about 10 s.
START_TIMEOUT = 60.0
#: Seconds that a server gets to end by itself before it is killed: Kubernetes' default.
STOP_TIMEOUT = 30.0
_POLL = 0.05
_LOG_TAIL = 4000


class ServerError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


def hack(script: str, *arguments: str) -> str:
    """Run a script of hack/ and return the last line that it printed, which is its answer."""
    done = subprocess.run([REPOSITORY / "hack" / script, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"hack/{script} {' '.join(arguments)} failed with {done.returncode}")
    return done.stdout.strip().rpartition("\n")[2]


def unprivileged(preferred: str) -> str | None:
    """Return the account to run a database as, which refuses root: the preferred one where it exists. None: the one
    that we are."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (preferred, "nobody") if name in accounts)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def coordinator_port() -> int:
    """Return a port for a group of several pods on this host, which takes the one above it, too. They are below those
    that the kernel hands out: another connection must not take them before pod 0 does, or comes back."""
    while True:
        with socket.socket() as probe, socket.socket() as above, contextlib.suppress(OSError):
            port = random.randrange(20_000, 30_000)
            probe.bind(("127.0.0.1", port))
            above.bind(("127.0.0.1", port + 1))
            return port


def start(command: Sequence[str | Path], log: Path, *, user: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server that dies with the caller, however that ends: the kernel kills it (Linux only).

    user: the name of an account to run as; needs root.
    """
    prefix: list[str] = []
    if shutil.which("setpriv"):
        prefix = ["setpriv", "--pdeathsig", "KILL"]
        if user:
            prefix += ["--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--init-groups"]
    with log.open("ab") as out:
        return subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when ready() says so; raise ServerError when the process ends first or START_TIMEOUT has passed."""
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "did not come up" if process.poll() is None else f"ended with {process.returncode}"
            raise ServerError(f"{process.args!r} {state}:\n{log.read_text(errors='replace')[-_LOG_TAIL:]}")
        time.sleep(_POLL)


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End a server, if need be by force."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Keep a server running for the block."""
    process = start(command, log)
    try:
        yield process
    finally:
        stop(process)
