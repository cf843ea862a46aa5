"""From ``checkpoints`` of a study to the store of its trials' checkpoints."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpstudy.api import reasons
from hpstudy.api.errors import InvalidStudyError
from hpstudy.api.names import CHECKPOINTS_FOLDER
from hpstudy.api.study import StudySpec
from hpstudy.checkpoints.folders import FolderStore
from hpstudy.checkpoints.store import CheckpointStore

_OBJECT_STORES = {"s3": "s3", "gs": "gcs", "memory": None}
"""Schemes, and the extra that brings each one's client. Stores whose single objects change in one step."""


def open_store(spec: StudySpec, stored_name: str, output: Path) -> CheckpointStore | None:
    """Open the store of a study; None when the study keeps no checkpoints. Nothing is written, no connection made; a
    client of an object store starts a thread.

    Args:
        stored_name: name of the study in the storage.
        output: folder of a run on this machine, for a study that names no place.

    Raises:
        InvalidStudyError: a URL of an unknown kind, or the client for it is not installed.
    """
    if spec.checkpoints is None:
        return None
    if spec.checkpoints.volume is not None:
        return FolderStore(Path(CHECKPOINTS_FOLDER, stored_name))
    if spec.checkpoints.url is None:
        return FolderStore(Path(output, "checkpoints", stored_name))
    url = spec.checkpoints.url
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path), stored_name))
    if parts.scheme not in _OBJECT_STORES:
        raise InvalidStudyError(
            reasons.INVALID_CHECKPOINTS,
            f"checkpoints.url: {parts.scheme}:// is not supported; take s3://bucket/folder, gs://bucket/folder or "
            "file:///folder",
        )
    import_client(spec)
    from fsspec.core import url_to_fs

    from hpstudy.checkpoints.objects import ObjectStore

    # Listings that it remembers would not show what other processes publish and remove.
    files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return ObjectStore(files, f"{root.rstrip('/')}/{stored_name}")


def import_client(spec: StudySpec) -> None:
    """Import what an object store's client consists of, once for all processes forked from this one. It starts no
    thread, unlike the client itself.

    Raises:
        InvalidStudyError: it is not installed.
    """
    url = spec.checkpoints.url if spec.checkpoints else None
    extra = _OBJECT_STORES.get(urlsplit(url).scheme) if url else None
    if extra is None:
        return
    import fsspec

    try:
        fsspec.get_filesystem_class(urlsplit(url).scheme)
    except ImportError:
        raise InvalidStudyError(
            reasons.INVALID_CHECKPOINTS,
            f"checkpoints.url: {url} needs the extra {extra}: pip install 'hpstudy[{extra}]' in the workers' image",
        ) from None
