"""requirements.py EXTRA... | --overrides: what pyproject.toml asks for, without the rest of that file.

A layer of dependencies that is made from this list stays valid when a setting of a linter changes.
"""

import re
import sys
import tomllib
from pathlib import Path

parsed = tomllib.loads(Path("pyproject.toml").read_text())
project = parsed["project"]
extras: dict[str, list[str]] = project["optional-dependencies"]


def expand(requirement: str) -> list[str]:
    """Replace the project's own extras, as in "hpstudy[runner]", by what they stand for."""
    if own := re.fullmatch(rf"{project['name']}\[(.+)\]", requirement):
        return [each for extra in own[1].split(",") for item in extras[extra.strip()] for each in expand(item)]
    return [requirement]


if sys.argv[1:] == ["--overrides"]:
    print(*parsed["tool"]["uv"]["override-dependencies"], sep="\n")
    sys.exit()
wanted = [*project["dependencies"], *(item for extra in sys.argv[1:] for item in extras[extra])]
print(*sorted({each for item in wanted for each in expand(item)}), sep="\n")
