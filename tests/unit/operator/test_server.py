"""The port that the kubelet and Prometheus ask."""

import asyncio
import socket
from collections.abc import Callable

import aiohttp
import pytest

from hpstudy_operator.server import Server
from tests.support.processes import free_port


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def answers(host: str, live: Callable[[], str]) -> tuple[int, str]:
    async def scenario() -> tuple[int, str]:
        server = Server(port := free_port(), live, lambda: "")
        await server.start()
        try:
            url = f"http://{host}:{port}/healthz"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status, await response.text()
        finally:
            await server.stop()

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("[::1]", marks=pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here"))]
)
def test_it_answers_on_all_addresses_of_both_families(host: str) -> None:
    assert answers(host, lambda: "") == (200, "ok\n")
    assert answers(host, lambda: "deaf") == (503, "deaf\n")
