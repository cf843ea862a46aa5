"""torch's static rendezvous, with the store in a process of its own.

The launcher must not hold the store: its server is a thread, and a rank that is forked while that thread looks up the
name of a rank that connects inherits glibc's resolver lock, locked for ever (seen once in a few hundred trials).
"""

import contextlib
import encodings.idna  # noqa: F401  of name lookups; every fork would import it anew
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from hpstudy.linux import die_with_parent

_TIMEOUT = 60  # seconds; every node is told of a trial at the same moment
_LEAVE_TIMEOUT = 5  # seconds
_ANSWER_LIMIT = 2000  # bytes


class Rendezvous(StaticTCPRendezvous):
    """Connects to the store on every node, and serves it on none."""

    def next_rendezvous(self):  # type: ignore[no-untyped-def]
        _await_server(self.master_addr, self.master_port)
        self._store = TCPStore(
            self.master_addr, self.master_port, is_master=False, wait_for_workers=False, timeout=self.timeout
        )
        return super().next_rendezvous()

    def leave(self) -> None:
        """After a trial that ended well: node 0 waits until no other needs the store, which ends when this returns.

        torch's barrier at the end lets node 0 go first, and the others would fail in it.
        """
        assert self._store is not None
        names = [f"left-{node}" for node in range(1, self.world_size)]
        if self.rank:
            self._store.set(names[self.rank - 1], "")
        else:
            with contextlib.suppress(DistError):  # one died after its ranks had finished: the driver knows
                self._store.wait(names, timedelta(seconds=_LEAVE_TIMEOUT))


def _await_server(host: str, port: int) -> None:
    """Wait until the store accepts connections. torch's own client, when it comes before node 0 serves, as every other
    node's does in most trials, looks again half a second later."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            socket.create_connection((host, port), timeout=_TIMEOUT).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def rendezvous(host: str, port: int, run_id: str, node: int, nodes: int) -> Rendezvous:
    """The rendezvous of one trial, over the store at host:port."""
    return Rendezvous(master_addr=host, master_port=port, rank=node, world_size=nodes, run_id=run_id, timeout=_TIMEOUT)


@contextlib.contextmanager
def serving_store(port: int) -> Iterator[int]:
    """Serve the store for the block; it accepts connections when the block begins. The value is its port.

    Args:
        port: 0 takes any that is free.

    Raises:
        RuntimeError: there is no store. Whoever serves on that port is not to be taken for it: another group's ranks
            would meet ours there.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(signal.SIGKILL)
            _serve(port, writer)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        answer = os.read(reader, _ANSWER_LIMIT).decode(errors="replace")
        if not answer.isdecimal():
            raise RuntimeError(f"no store for the ranks to meet in, on port {port}: {answer or 'it ended at once'}")
        yield int(answer)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(port: int, answer: int) -> NoReturn:
    try:
        store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=_TIMEOUT))
    except Exception as error:
        os.write(answer, f"{type(error).__name__}: {error}".encode()[:_ANSWER_LIMIT])
        raise
    os.write(answer, str(store.port).encode())
    while True:
        time.sleep(3600)
