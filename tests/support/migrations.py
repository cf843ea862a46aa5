"""A fixture for tests that open hundreds of storages; a conftest imports it."""

from collections.abc import Iterator
from typing import Any

import pytest
from optuna.storages._rdb.storage import _VersionManager


@pytest.fixture(scope="session", autouse=True)
def migrations_are_read_once() -> Iterator[None]:
    """Optuna reads all its migrations at each opening of a storage: a tenth of a second, hundreds of times here."""
    read: list[Any] = []
    original = _VersionManager._create_alembic_script

    def once(manager: _VersionManager) -> Any:
        if not read:
            read.append(original(manager))
        return read[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", once)
        yield
