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
"""The API server refuses the Job made from ``workers.template``."""
INVALID_CHECKPOINTS = "InvalidCheckpoints"
"""checkpoints names no place, or one that the workers cannot write to."""
IMPORT_FAILED = "ImportFailed"
"""A ``module:function`` cannot be imported in the worker's image."""
INVALID_ON_SUCCESS = "InvalidOnSuccess"
"""A template in onSuccess names nothing that the best trial will have, or the API server refuses the Job."""
UNKNOWN_PARAMETER = "UnknownParameter"
"""A parameter of the search space or an argument is no TrainingArguments field and no ``model.*`` setting."""
INVALID_COMMAND = "InvalidCommand"
"""A template in a command names nothing that a trial has, or its program does not exist."""
INVALID_SCRIPT = "InvalidScript"
"""The script of the trials is missing, or no Python."""
INVALID_DATASET = "InvalidDataset"
"""The data set is missing or lacks a column."""
INVALID_MODEL = "InvalidModel"
"""The model cannot be loaded, or its configuration cannot be built."""

# Accepted and Stalled
REFUSED = "Refused"
"""The API server does not take an object of the study, and not for its content: an admission policy, a right that the
operator lacks, a namespace that is being deleted. StorageReady of a deleted study: it does not let its Jobs go, or its
Secret be read."""

# StorageReady
STORAGE_READY = "StorageReady"
SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
"""The Secret of ``storage.secretRef``, or its key, does not exist."""
SECRET_REFUSED = "SecretRefused"  # noqa: S105
"""The API server does not let the operator read or make the Secret: a right, a quota or an admission policy."""
STORAGE_UNREACHABLE = "StorageUnreachable"
"""The database does not answer, refuses the credentials, or its URL is malformed."""
STORAGE_REFUSED = "StorageRefused"
"""The database answers, and refuses what is to be stored or asked for this study."""
SCHEMA_MISMATCH = "SchemaMismatch"
"""The tables of the storage were made by another version of Optuna."""

# Events of a deletion
STUDY_LEFT_IN_STORAGE = "StudyLeftInStorage"
"""deletionPolicy is Delete, and the storage could not be reached."""

# Running
WAITING_FOR_WORKERS = "WaitingForWorkers"
"""Jobs exist, no group is ready yet."""
TRIALS_RUNNING = "TrialsRunning"
NOT_STARTED = "NotStarted"
"""Something has to be mended before workers start; see the other conditions."""
FINISHED = "Finished"
"""The study is over."""

# Suspended, and Running and Stalled of a suspended study
SUSPENDED = "Suspended"
"""spec.suspend is true: no worker group runs."""
NOT_SUSPENDED = "NotSuspended"

# Stalled
PROGRESSING = "Progressing"
IMAGE_PULL_FAILED = "ImagePullFailed"
UNSCHEDULABLE = "Unschedulable"
PODS_MISSING = "PodsMissing"
"""The cluster makes no pods for a worker group's Job: a quota, or an admission policy."""
PODS_NOT_READY = "PodsNotReady"
"""A pod that has a node has been starting, or ending, for too long: a volume, the network, a node that is gone."""
QUOTA_EXCEEDED = "QuotaExceeded"
"""The namespace's quota has no room for an object of the study."""
NAME_TAKEN = "NameTaken"
"""An object of a name that the study needs belongs to something else."""
CONTAINER_FAILED = "ContainerFailed"
"""A worker container cannot be started, or keeps ending."""
NO_TRIAL_STARTED = "NoTrialStarted"
"""Worker groups are ready, and none has asked for a trial in a long time."""
TRIALS_OVERDUE = "TrialsOverdue"
"""No trial has started or ended for many times as long as the longest took."""

# Succeeded, Failed
GOAL_REACHED = "GoalReached"
"""A trial is as good as the goals of the objectives ask."""
MAX_TRIALS_REACHED = "MaxTrialsReached"
SPACE_EXHAUSTED = "SpaceExhausted"
"""The sampler has tried every point of its grid, or of a finite space."""
STOP_CONDITION_MET = "StopConditionMet"
"""stopWhen says that more trials are not worth their cost."""
GPU_HOURS_REACHED = "GpuHoursReached"
"""budget.gpuHours are used up; Failed where no trial is complete."""
TIMEOUT_REACHED = "TimeoutReached"
"""budget.timeout is over; Failed where no trial is complete."""
MAX_FAILED_TRIALS_EXCEEDED = "MaxFailedTrialsExceeded"
WORKER_GROUP_FAILED = "WorkerGroupFailed"
"""A worker group ended for good without a reason of its own."""
SAMPLER_FAILED = "SamplerFailed"
"""The sampler cannot propose trials for this space or these objectives."""
SCRIPT_FAILED = "ScriptFailed"
"""The script of the trials fails again and again without finishing one."""
SCRIPT_ENDED = "ScriptEnded"
"""The script ends without running a trial, and the study is not over."""
ENDED_EARLY = "EndedEarly"
"""The workers keep ending as if the study were over, and the storage says that it is not."""
NOT_FINISHED = "NotFinished"
NOT_FAILED = "NotFailed"

# Events about onSuccess
ON_SUCCESS_CREATED = "OnSuccessJobCreated"
ON_SUCCESS_WAITING = "OnSuccessJobWaiting"
"""Its Job cannot be made, or its pods cannot start, until something is mended."""
ON_SUCCESS_SUCCEEDED = "OnSuccessJobSucceeded"
ON_SUCCESS_FAILED = "OnSuccessJobFailed"
