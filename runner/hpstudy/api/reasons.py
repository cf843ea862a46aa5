"""The reasons of conditions, one list for the operator, the workers and the command line.

A reason is a CamelCase word that programs may match on; the message beside it is for people.
"""

# Accepted
ACCEPTED = "Accepted"
"""The study can run as written."""
INVALID_SPEC = "InvalidSpec"
"""A field breaks a rule of the schema that the API server cannot see."""
SPEC_CHANGED = "SpecChanged"
"""Objectives, search space or backend differ from what the stored trials were made with."""
UNKNOWN_SAMPLER = "UnknownSampler"
UNKNOWN_PRUNER = "UnknownPruner"
INVALID_OPTION = "InvalidOption"
"""A sampler or pruner does not take an option, or not with that value."""
INVALID_SPACE = "InvalidSpace"
"""The search space is not well-formed, or says what the backend cannot express."""
INVALID_INITIAL_TRIAL = "InvalidInitialTrial"
"""A hyperparameter of initialTrials does not exist in the search space, or is out of its bounds."""
INVALID_WARM_START = "InvalidWarmStart"
"""A study of warmStartFrom is not in the storage, or has other objectives."""
INVALID_TEMPLATE = "InvalidTemplate"
"""The API server refused the Job or Service made from ``workers.template``."""
IMPORT_FAILED = "ImportFailed"
"""A ``module:function`` cannot be imported in the worker's image."""
UNKNOWN_PARAMETER = "UnknownParameter"
"""A parameter of the search space or an argument is no TrainingArguments field and no ``model.*`` setting."""
INVALID_DATASET = "InvalidDataset"
"""The data set is missing or lacks a column."""
INVALID_MODEL = "InvalidModel"
"""The model cannot be loaded, or its configuration cannot be built."""

# StorageReady
STORAGE_READY = "StorageReady"
SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
"""The Secret of ``storage.secretRef``, or its key, does not exist."""
STORAGE_UNREACHABLE = "StorageUnreachable"
"""The database does not answer, refuses the credentials, or its URL is malformed."""

# Running
WAITING_FOR_WORKERS = "WaitingForWorkers"
"""Jobs exist, no group is ready yet."""
TRIALS_RUNNING = "TrialsRunning"
NOT_STARTED = "NotStarted"
"""Something has to be mended before workers start; see the other conditions."""
FINISHED = "Finished"

# Stalled
PROGRESSING = "Progressing"
IMAGE_PULL_FAILED = "ImagePullFailed"
UNSCHEDULABLE = "Unschedulable"
PODS_MISSING = "PodsMissing"
"""The cluster makes no pods for a worker group's Job: a quota, or an admission policy."""
NAME_TAKEN = "NameTaken"
"""An object of a name that the study needs belongs to something else."""
CONTAINER_FAILED = "ContainerFailed"
"""A worker container cannot be started, or keeps ending."""

# Succeeded, Failed
MAX_TRIALS_REACHED = "MaxTrialsReached"
SPACE_EXHAUSTED = "SpaceExhausted"
"""The sampler has tried every point of its grid, or of a finite space."""
STOP_CONDITION_MET = "StopConditionMet"
"""stopWhen says that more trials are not worth their cost."""
MAX_FAILED_TRIALS_EXCEEDED = "MaxFailedTrialsExceeded"
WORKER_GROUP_FAILED = "WorkerGroupFailed"
"""A worker group ended for good without a reason of its own."""
SAMPLER_FAILED = "SamplerFailed"
"""The sampler cannot propose trials for this space or these objectives."""
ENDED_EARLY = "EndedEarly"
"""The workers keep ending as if the study were over, and the storage says that it is not."""
NOT_FINISHED = "NotFinished"
NOT_FAILED = "NotFailed"
