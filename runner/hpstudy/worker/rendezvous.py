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
from torch.distributed.elastic.rendezvous import RendezvousHandler
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from hpstudy.worker.linux import die_with_parent

_TIMEOUT = 60  # seconds; every node is told of a trial at the same moment


class _ClientRendezvous(StaticTCPRendezvous):
    """Connects to the store on every node, and serves it on none."""

    def next_rendezvous(self):  # type: ignore[no-untyped-def]
        self._store = TCPStore(
            self.master_addr, self.master_port, is_master=False, wait_for_workers=False, timeout=self.timeout
        )
        return super().next_rendezvous()


def rendezvous(host: str, port: int, run_id: str, node: int, nodes: int) -> RendezvousHandler:
    """The rendezvous of one trial, over the store at host:port."""
    return _ClientRendezvous(
        master_addr=host, master_port=port, rank=node, world_size=nodes, run_id=run_id, timeout=_TIMEOUT
    )


@contextlib.contextmanager
def serving_store(port: int) -> Iterator[None]:
    """Serve the store on this port for the block; it accepts connections when the block begins."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent(signal.SIGKILL)
            store = TCPStore(
                "localhost", port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=_TIMEOUT)
            )
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
