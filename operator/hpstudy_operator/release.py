"""What the chart runs once it is uninstalled: nobody is left to take our finalizer off a study that is deleted later.

    python -m hpstudy_operator.release [NAMESPACE ...]

Without namespaces, in all. The trials stay in the storage.
"""

import sys

from hpstudy.api.study import KIND
from hpstudy_operator import logs
from hpstudy_operator.deletion import hold, is_held
from hpstudy_operator.kube import ApiError, Kube, UnavailableError

_ATTEMPTS = 20
"""For one study, which somebody else may change meanwhile."""


def release_all(kube: Kube) -> int:
    """Take our finalizer off every study that may be listed; returns of how many.

    Raises:
        ApiError: the API server says no to one of them.
        UnavailableError: it does not answer, or a study is never as it was read.
    """
    try:
        held = [found for found in kube.list_metadata(KIND) if is_held(found)]
    except ApiError as error:
        if error.status not in {403, 404}:
            raise
        # The CRD is gone, and all studies with it; or the namespace, and our Role with it.
        print(f"left out: {error}")
        return 0
    for found in held:
        _release(kube, found["metadata"]["namespace"], found["metadata"]["name"])
    return len(held)


def _release(kube: Kube, namespace: str, name: str) -> None:
    for _ in range(_ATTEMPTS):
        resource = kube.get(KIND, namespace, name)
        if resource is None or not is_held(resource) or hold(kube, resource, False) is not None:
            return
    raise UnavailableError(f"HPStudy {namespace}/{name} changes all the time")


def main() -> None:
    """Release the studies of the namespaces that are named, or of all. Exits with 1 when some were not."""
    logs.configure()
    failed = False
    for namespace in sys.argv[1:] or [""]:
        where = namespace or "all namespaces"
        try:
            print(f"{where}: {release_all(Kube(1, [namespace] if namespace else []))} studies released")
        except (ApiError, UnavailableError) as error:
            print(f"{where}: {error}")
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
