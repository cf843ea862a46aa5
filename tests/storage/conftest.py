"""What the tests of this folder share."""

from tests.support.migrations import migrations_are_read_once

__all__ = ["migrations_are_read_once"]
