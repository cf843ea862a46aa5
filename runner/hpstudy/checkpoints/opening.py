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
    """Open the store of a study; None when the study keeps no checkpoints. Nothing is written, no connection made.

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
    return _object_store(url, _OBJECT_STORES[parts.scheme], stored_name)


def _object_store(url: str, extra: str | None, stored_name: str) -> CheckpointStore:
    from hpstudy.checkpoints.objects import ObjectStore

    try:
        from fsspec.core import url_to_fs

        # Listings that it remembers would not show what other processes publish and remove.
        files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        hint = f"pip install 'hpstudy[{extra}]' in the workers' image" if extra else str(error)
        raise InvalidStudyError(reasons.INVALID_CHECKPOINTS, f"checkpoints.url: {url}: {hint}") from None
    return ObjectStore(files, f"{root.rstrip('/')}/{stored_name}")
