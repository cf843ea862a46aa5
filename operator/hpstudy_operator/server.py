"""What the operator says of itself over HTTP: /healthz and /readyz for the kubelet, /metrics for Prometheus.

On the operator's own event loop: one that is stuck does not answer, and is restarted. The answers name no study, as
whoever reaches the port may not be allowed to see them; the log does.
"""

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from hpstudy_operator.metrics import exposition

_log = logging.getLogger(__name__)
Check = Callable[[], str]
"""Returns what is wrong, or nothing."""


class Server:
    """The HTTP server.

    Args:
        port: on all interfaces.
        live: what a restart would mend.
        ready: what the operator still waits for after its start.
    """

    def __init__(self, port: int, live: Check, ready: Check) -> None:
        self._port = port
        self._checks = {"/healthz": live, "/readyz": ready}
        self._said = dict.fromkeys(self._checks, "")
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Answer from now on."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        for path in self._checks:
            app.router.add_get(path, self._check)
        # Probes and scrapes are answered at once: nothing that is under way is worth waiting for.
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        # None: all addresses of both families. A cluster may have IPv6 alone.
        await web.TCPSite(self._runner, None, self._port).start()

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner:
            await self._runner.cleanup()

    async def _check(self, request: web.Request) -> web.Response:
        problem = self._checks[request.path]()
        if problem != self._said[request.path]:
            _log.log(logging.WARNING if problem else logging.INFO, "%s: %s", request.path, problem or "ok")
            self._said[request.path] = problem
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
