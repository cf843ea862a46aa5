"""What the operator measures, for Prometheus.

Labels are bounded: namespaces, never studies. https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from hpstudy import __version__

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""A pass takes some 50 ms; a connection to a database gives up after ten seconds, a call of the API server after 30."""

RECONCILE_SECONDS = Histogram(
    "hpstudy_reconcile_seconds", "Time of a pass over a study.", buckets=_SECONDS, registry=REGISTRY
)
RECONCILE_ERRORS = Counter(
    "hpstudy_reconcile_errors", "Passes that failed, by the class of the error.", ["error"], registry=REGISTRY
)
STORAGE_SECONDS = Histogram(
    "hpstudy_storage_seconds",
    "Time of an operation on a storage, also of one that failed.",
    ["operation"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
WORKER_RESTARTS = Counter(
    "hpstudy_worker_restarts",
    "Pods of workers that were replaced, and worker groups that were started again.",
    ["kind"],
    registry=REGISTRY,
)
for _kind in ("pod", "group"):
    WORKER_RESTARTS.labels(_kind)  # 0 from the start: the first one is an increase
for _error in ("ApiError", "UnavailableError"):
    RECONCILE_ERRORS.labels(_error)
QUEUE_DEPTH = Gauge("hpstudy_queue_depth", "Studies that wait for a pass.", registry=REGISTRY)
QUEUE_OLDEST = Gauge(
    "hpstudy_queue_oldest_seconds", "For how long the oldest of them has waited, or been worked on.", registry=REGISTRY
)
LEADER = Gauge("hpstudy_leader", "1 in the replica that acts, 0 in those that stand by.", registry=REGISTRY)
_BUILD = Gauge("hpstudy_build_info", "The operator's version.", ["version"], registry=REGISTRY)
_BUILD.labels(__version__).set(1)


@contextmanager
def reconciling() -> Iterator[None]:
    """Measure a pass, and count it when it fails."""
    with RECONCILE_SECONDS.time():
        try:
            yield
        except Exception as error:
            RECONCILE_ERRORS.labels(type(error).__name__).inc()
            raise


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    return generate_latest(REGISTRY)
