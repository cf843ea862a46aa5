"""Which network interface the ranks of a group talk over.

Left alone, gloo takes the address that the host's name stands for, which on a node's own network may be 127.0.1.1, and
NCCL the first interfaces that are neither lo nor docker's, a bridge of the node's among them. Here both take the one by
which a pod reaches node 0, where all pods of the group are known to meet.
"""

import logging
import os
import socket

import psutil

_log = logging.getLogger(__name__)
_VARIABLES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}  # NCCL takes a name for a prefix unless told
"""https://docs.pytorch.org/docs/stable/distributed.html#choosing-the-network-interface-to-use and
https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname"""


def choose_interface(host: str) -> None:
    """Set gloo's and NCCL's variables where the environment does not: what a pod's template says is there already.

    Args:
        host: of node 0, as the group's pods resolve it.
    """
    missing = {name: form for name, form in _VARIABLES.items() if name not in os.environ}
    if not missing:
        return
    try:
        interface = interface_to(host)
    except OSError as error:
        _log.warning("no network interface leads to %s (%s): gloo and NCCL choose by themselves", host, error)
        return
    for name, form in missing.items():
        os.environ[name] = form.format(interface)


def interface_to(host: str) -> str:
    """The interface by which a host is reached; for an address of this host, the one that has it.

    Raises:
        OSError: the name is not known, or there is no way to it.
    """
    unreachable: OSError | None = None
    for family, kind, _, _, address in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):  # any port: nothing is sent
        try:
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                own = probe.getsockname()[0]
        except OSError as error:  # IPv6, say, which the name has and this host does not
            unreachable = error
            continue
        for name, addresses in psutil.net_if_addrs().items():
            if any(each.address.partition("%")[0] == own for each in addresses):
                return name
    raise unreachable or OSError(f"{host} has no address")
