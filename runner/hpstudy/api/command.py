"""The ``command`` form of a trial: a program in any language."""

import re
from typing import Annotated

from pydantic import Field

from hpstudy.api.model import ApiModel, Rule, exactly_one

STEP = "step"
"""In a line of metrics, and among the groups of a pattern: the step that the metrics belong to."""
NAME, VALUE = "name", "value"
METRICS_FILE = "metrics.jsonl"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = "HPSTUDY_"

Text = Annotated[str, Field(max_length=65_536)]
"""An argument or a variable of a program."""


class CommandMetrics(ApiModel):
    """Where a program's metrics are read while it runs. Every complete line is a report that can prune the trial; the
    last value of each metric is its result."""

    file: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """A file that the program appends lines of JSON to, each an object of metrics by name and, if it likes, a whole
    number step. A path below the trial's output folder; HPSTUDY_METRICS tells the program where it is."""
    pattern: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A regular expression of Python's that is looked for in every line of the program's output. Its groups are name
    and value, or else are named like metrics; a group step is the step."""

    rules = (
        exactly_one("metrics", "file", "pattern"),
        Rule(
            "metrics.file must be a path below the trial's output folder: neither begin with / nor contain ..",
            lambda m: m.file is None or not (m.file.startswith("/") or ".." in m.file.split("/")),
            "!has(self.file) || !(self.file.startsWith('/') || '..' in self.file.split('/'))",
        ),
        Rule(
            "metrics.pattern must be a regular expression of Python's with the groups (?P<name>...) and (?P<value>...),"
            " or with groups named like metrics, in letters, digits and _",
            lambda m: m.pattern is None or _has_metrics(m.pattern),
        ),
    )


def _has_metrics(pattern: str) -> bool:
    try:
        groups = re.compile(pattern).groupindex.keys() - {STEP}
    except re.error:
        return False
    return bool(groups) and ((NAME in groups) == (VALUE in groups))


class Command(ApiModel):
    """A program, run once per trial on every node, without a shell. In its arguments and variables {{ NAME }} stands
    for a hyperparameter, or for trial.number, trial.output_dir, trial.checkpoint_dir, trial.metrics, trial.parameters,
    trial.node_rank or trial.nodes. In a cluster it runs in the worker container of workers.template, whose image needs
    only /bin/sh."""

    argv: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    """The program and its arguments. An argument that names a hyperparameter which the trial does not have is left
    out."""
    metrics: CommandMetrics = Field(default_factory=lambda: CommandMetrics(file=METRICS_FILE))
    """Where its metrics are read; absent: the file metrics.jsonl."""
    working_dir: Annotated[str, Field(min_length=1, max_length=4096)] = "."
    """Where it runs, relative to the manifest's folder or, in a cluster, to the container's working directory."""
    env: Annotated[dict[str, Text], Field(max_length=200)] = Field(default_factory=dict)
    """More variables of its environment. One that names a hyperparameter which the trial does not have is not set."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 10
    """When its trial is pruned, it gets SIGTERM, and SIGKILL so many seconds later."""

    rules = (
        Rule(
            "argv needs a program first",
            lambda c: c.argv[0] != "" and not c.argv[0].startswith("-"),
            "self.argv[0] != '' && !self.argv[0].startsWith('-')",
        ),
        Rule(
            "argv and env cannot hold a NUL character",
            lambda c: not any("\0" in text for text in (*c.argv, *c.env.values())),
        ),
        Rule(
            f"env must have names of letters, digits and _ that do not begin with {_OURS}, which are ours",
            lambda c: all(_VARIABLE.fullmatch(name) and not name.startswith(_OURS) for name in c.env),
            f"!has(self.env) || self.env.all(name, name.matches('^{_VARIABLE.pattern}$')"
            f" && !name.startsWith('{_OURS}'))",
        ),
    )
