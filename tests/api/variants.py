"""The operator with something changed. Launch: python -m tests.api.variants hurried|next

hurried: what takes a minute takes less than a second.
next: a later version, whose builders make everything a little different.
"""

import sys
from collections.abc import Callable
from typing import Any

from hpstudy_operator import builders, main, names

LABEL = "example.org/version"
_BUILDERS = ("build_config_map", "build_service", "build_worker_job")


def hurried() -> None:
    main.AUDIT_SECONDS = 0.3
    main.LOOK_SECONDS = 0.5
    main.STOP_SECONDS = 1.0


def next_() -> None:
    for name in _BUILDERS:
        setattr(builders, name, _changed(getattr(builders, name)))


def _changed(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def build_differently(*arguments: Any, **options: Any) -> dict[str, Any]:
        made = build(*arguments, **options)
        made["metadata"]["labels"] = {**made["metadata"]["labels"], LABEL: "next"}
        made["metadata"]["annotations"] |= {names.ANNOTATION_VERSION: "next"}
        if "data" in made:
            made["data"] = {name: text + "\n" for name, text in made["data"].items()}
        return made

    return build_differently


if __name__ == "__main__":
    {"hurried": hurried, "next": next_}[sys.argv[1]]()
    main.main()
