"""torch's static rendezvous, with the store in a process of its own.

The launcher must not hold the store: its server is a thread, and a rank that is forked while that thread looks up the
name of a rank that connects inherits glibc's resolver lock, locked for ever (seen once in a few hundred trials).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous, create_rdzv_handler

from hpstudy.worker.linux import die_with_parent

BACKEND = "hpstudy-static"


class _ClientRendezvous(StaticTCPRendezvous):
    """Connects to the store on every node, and serves it on none."""

    def get_backend(self) -> str:
        return BACKEND

    def next_rendezvous(self):  # type: ignore[no-untyped-def]
        self._store = TCPStore(
            self.master_addr, self.master_port, is_master=False, wait_for_workers=False, timeout=self.timeout
        )
        return super().next_rendezvous()


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    handler = create_rdzv_handler(parameters)
    handler.__class__ = _ClientRendezvous
    return handler


def register() -> None:
    """Make the backend known to torch's launcher, once in a process."""
    rendezvous_handler_registry.register(BACKEND, _create)


@contextlib.contextmanager
def serving_store(port: int) -> Iterator[None]:
    """Serve the store on this port for the block; it accepts connections when the block begins."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(signal.SIGKILL)
            store = TCPStore("localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
            os.write(writer, b"x")
            while store is not None:
                time.sleep(3600)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        os.read(reader, 1)
        yield
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
