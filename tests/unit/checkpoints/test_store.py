"""Stores of checkpoints: one contract over folders, servers that speak S3 and Google's API, and fsspec's own memory."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.registry import _registry
from gcp_storage_emulator.server import create_server

from hpstudy.api.errors import InvalidStudyError
from hpstudy.checkpoints.opening import open_store
from hpstudy.checkpoints.store import BEST, LAST, CheckpointStore
from tests.support.builders import spec
from tests.support.s3 import BUCKET, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[Mapping[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """A server that speaks Google Cloud Storage's JSON API over HTTP; its URL."""
    with pytest.MonkeyPatch.context() as patch, create_server("127.0.0.1", 0, True, BUCKET) as server:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # read when first imported; zonal buckets speak gRPC
        yield f"http://127.0.0.1:{server._api._httpd.server_port}"


@pytest.fixture(params=["folder", "file", "s3", "gs", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """An empty store of each kind, as a study opens it."""
    checkpoints: dict[str, str] = {}
    match request.param:
        case "file":
            checkpoints["url"] = f"file://{tmp_path}/with%20space"
        case "memory":
            checkpoints["url"] = f"memory://{uuid4().hex}"
        case "s3":
            for name, value in request.getfixturevalue("s3").items():
                monkeypatch.setenv(name, value)
            checkpoints["url"] = f"s3://{BUCKET}/{uuid4().hex}"
        case "gs":
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gs"))
            monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # or it asks the cloud's machine who it is
            checkpoints["url"] = f"gs://{BUCKET}/{uuid4().hex}"
    made = open_store(spec(checkpoints=checkpoints), "team/study-1234", tmp_path / "output")
    assert made is not None
    made.check()
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "below").mkdir(parents=True)
    write(folder, "one")
    return folder


def write(folder: Path, text: str) -> None:
    (folder / "model").write_text(text)
    (folder / "below" / "part").write_text(text)
    (folder / "optimizer.pt").write_text(text)


def read(store: CheckpointStore, folder: Path, number: int = 3, label: str = LAST) -> dict[str, str]:
    assert store.fetch(number, label, folder)
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def whole(text: str) -> dict[str, str]:
    return {"model": text, "below/part": text, "optimizer.pt": text}


def test_what_is_published_is_fetched_until_the_next(store: CheckpointStore, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert not store.fetch(3, LAST, target)
    assert store.location(3, LAST) is None
    assert store.numbers() == []
    store.publish(3, LAST, source)
    assert read(store, target) == whole("one")
    write(source, "two")
    (source / "below" / "part").unlink()
    store.publish(3, LAST, source)
    store.publish(3, BEST, source, leave_out=["optimizer*"])
    assert read(store, target) == {"model": "two", "optimizer.pt": "two"}
    assert read(store, target, label=BEST) == {"model": "two"}
    store.publish(12, BEST, source)
    assert store.numbers() == [3, 12]
    store.remove(3, LAST)
    assert not store.exists(3, LAST)
    assert store.exists(3, BEST)
    store.remove(3, BEST)
    store.remove(3, BEST)
    assert store.numbers() == [12]


@pytest.mark.parametrize("at", ["_write", "_point", "_sweep"])
def test_a_crash_while_publishing_leaves_one_whole_checkpoint_and_nothing_for_long(
    store: CheckpointStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    store.publish(3, LAST, source)
    write(source, "two")
    whole_write = store._write

    def half(number: int, label: str, version: str, folder: Path, files: list[Path]) -> None:
        whole_write(number, label, version, folder, files[:1])
        raise KeyboardInterrupt

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, at, half if at == "_write" else crash)
        with pytest.raises(KeyboardInterrupt):
            store.publish(3, LAST, source)
    assert read(store, tmp_path / "target") == whole("two" if at == "_sweep" else "one")
    assert len(store._versions(3, LAST)) == 2
    store.tidy(3)
    assert len(store._versions(3, LAST)) == 1
    assert read(store, tmp_path / "target") == whole("two" if at == "_sweep" else "one")


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs, of itself
def test_a_large_file_arrives_as_it_was(store: CheckpointStore, tmp_path: Path) -> None:
    """Clients of object stores send such a file in another way than a small one."""
    folder = tmp_path / "large"
    folder.mkdir()
    weights = os.urandom(6 * 2**20)
    (folder / "model").write_bytes(weights)
    (folder / "empty").touch()
    store.publish(3, LAST, folder)
    assert store.fetch(3, LAST, tmp_path / "target")
    assert (tmp_path / "target" / "model").read_bytes() == weights
    assert (tmp_path / "target" / "empty").read_bytes() == b""


def test_readers_see_the_old_one_or_the_new_one(store: CheckpointStore, source: Path, tmp_path: Path) -> None:
    store.publish(3, LAST, source)
    done = threading.Event()

    def publish() -> None:
        for version in range(15):
            write(source, str(version))
            store.publish(3, LAST, source)
        done.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    seen = []
    while not done.is_set():
        found = read(store, tmp_path / "target")
        assert found == whole(found["model"])
        seen.append(found["model"])
    publisher.join()
    assert read(store, tmp_path / "target") == whole("14")


def test_a_folder_of_a_checkpoint_is_a_path_and_that_in_an_object_store_a_url(
    store: CheckpointStore, source: Path, request: pytest.FixtureRequest
) -> None:
    store.publish(3, BEST, source)
    location = store.location(3, BEST) or ""
    kind = request.node.callspec.params["store"]
    if kind in ("folder", "file"):
        assert location.endswith("/team/study-1234/trial-3/best")
        assert Path(location, "below", "part").read_text() == "one"
    else:
        assert "/team/study-1234/trial-3/best/" in location
        with fsspec.open(f"{location}/below/part", "r") as file:
            assert file.read() == "one"


@pytest.mark.parametrize(
    ("checkpoints", "complaint"),
    [
        ({"url": "ftp://host/folder"}, "ftp:// is not supported; take s3://"),
        ({"url": "gs://bucket/folder"}, "pip install 'hpstudy[gcs]'"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, str], complaint: str
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as where it is not installed
    monkeypatch.delitem(_registry, "gs", raising=False)
    with pytest.raises(InvalidStudyError) as refused:
        open_store(spec(checkpoints=checkpoints), "study", tmp_path)
    assert refused.value.reason == "InvalidCheckpoints"
    assert complaint in refused.value.message


def test_without_checkpoints_there_is_no_store(tmp_path: Path) -> None:
    assert open_store(spec(), "study", tmp_path) is None
