"""What the chart installs, on an API server without nodes."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.apiserver import COLLECTORS, ApiServer, api_server
from tests.support.kubectl import program
from tests.support.processes import REPOSITORY

SYSTEM = "hpstudy-system"
CHART = REPOSITORY / "charts/hpstudy"
_RIGHTS = ("crd", "serviceaccount", "rbac", "userroles")
_CONTROLLERS = (*COLLECTORS, "job-controller", "clusterrole-aggregation-controller", "resourcequota-controller")


@contextmanager
def installed_server(*namespaces: str, values: Sequence[str] = ()) -> Iterator[ApiServer]:
    """An API server with Jobs that get pods, and with a garbage collector; the chart's CRD and rights are installed.

    namespaces: made before the chart.
    values: --set=… for the chart.
    """
    with api_server(_CONTROLLERS) as running:
        for namespace in (SYSTEM, *namespaces):
            running.kubectl("create", "namespace", namespace)
        only = [argument for name in _RIGHTS for argument in ("--show-only", f"templates/{name}.yaml")]
        running.kubectl.in_namespace("").apply(  # each object's own
            helm("template", "hpstudy", str(CHART), f"--namespace={SYSTEM}", *only, *values)
        )
        running.kubectl("wait", "--for=condition=Established", "crd/hpstudies.hpstudy.io", "--timeout=30s")
        yield running


def helm(*arguments: str) -> str:
    """What helm prints."""
    done = subprocess.run([program("helm"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr or done.stdout)
    return done.stdout
