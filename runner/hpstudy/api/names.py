"""The names under which a study is known outside its resource."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports this module, and answers at once
    from hpstudy.api.study import Metadata

LABEL_STUDY = "hpstudy.io/study"
"""On everything made for a study: its name."""
LABEL_GROUP = "hpstudy.io/group"
"""On everything made for a worker group: its index."""
LABEL_FINAL = "hpstudy.io/on-success-of"
"""On the Job of onSuccess and its pods: the study's name. Its pods have no other label of ours: they are no workers."""

STORAGE_URL_VARIABLE = "HPSTUDY_STORAGE_URL"
"""Where a worker finds the URL of the storage: the environment, filled from a Secret, never an argument."""

REVISION_VARIABLE = "HPSTUDY_REVISION"
"""Of what of the spec a worker group was made from, in the environment of its processes."""

CHECKPOINTS_FOLDER = "/checkpoints"
"""Where worker pods mount the volume of ``checkpoints``."""

GRACE_VARIABLE = "HPSTUDY_GRACE_SECONDS"
"""How long a worker's pod may take to end, in seconds; absent: ``DEFAULT_GRACE_SECONDS``."""
DEFAULT_GRACE_SECONDS = 30
"""Kubernetes' own."""

AGENT_VARIABLE = "HPSTUDY_AGENT"
"""Names the folder of a command's agent, where the program has a container of its own and the agent runs there."""
AGENT_SCRIPT = "command_agent.sh"
"""The agent, in that folder."""


def stored_study_name(metadata: "Metadata") -> str:
    """The name of the study in the Optuna storage.

    In a cluster the start of the object's uid is part of it: a study deleted and applied anew starts afresh, and what
    the old one recorded stays readable under its own name.
    """
    return f"{metadata.namespace}/{metadata.name}-{metadata.uid[:8]}" if metadata.uid else metadata.name
