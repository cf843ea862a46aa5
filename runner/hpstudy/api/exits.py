"""Exit codes of a worker, which its Job and the operator act on."""

EXIT_INVALID = 2
"""The study cannot run as written: starting it again would change nothing, and the Job must not try."""
EXIT_PREEMPTED = 143
"""It was told to stop and handed its trials back: as a process that SIGTERM ended."""
