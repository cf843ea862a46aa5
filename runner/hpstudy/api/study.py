"""The HPStudy resource as its users write it. ``crds/`` is generated from these types; their docstrings are what
``kubectl explain hpstudy.spec`` prints."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, model_validator

from hpstudy.api.checkpoints import Checkpoints
from hpstudy.api.fields import Algorithm as Algorithm
from hpstudy.api.fields import Duration, Entry, Name, Number, Scalar
from hpstudy.api.metrics import DEFAULT_OBJECTIVE, TEST_PREFIX, canonical
from hpstudy.api.model import ApiModel, Rule, exactly_one
from hpstudy.api.objectives import MAX_CONSTRAINTS, MAX_OBJECTIVES, Constraint, Scalarize, StopWhen, WarmStart
from hpstudy.api.objectives import Objective as Objective
from hpstudy.api.retries import Retries
from hpstudy.api.success import OnSuccess
from hpstudy.api.tasks import ALWAYS, TASKS
from hpstudy.api.trials import Trial
from hpstudy.api.workers import ONE_TRIAL, Storage, Workers

GROUP = "hpstudy.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "HPStudy"
PLURAL = "hpstudies"

MAX_NAME = 52
"""So that the names of Jobs and pods made from a study's remain DNS labels (63 characters)."""
DNS_LABEL = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Services are made from it, whose names begin with a letter (RFC 1035)."""

# The API server bounds the cost of CEL rules by the sizes that the schema allows, so everything has a size.
MAX_PARAMETERS = 200
MAX_CHOICES = 1000
MAX_INITIAL_TRIALS = 1000
MAX_WARM_STARTS = 10

AUTO = "auto"
"""The sampler that leaves the choice to us."""

Condition = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_CHOICES)]


class Parameter(ApiModel):
    """One hyperparameter: a range of numbers or a list of choices."""

    type: Literal["float", "int", "categorical"]
    """float and int take low and high; categorical takes choices."""
    low: Number | None = None
    """Smallest value, inclusive."""
    high: Number | None = None
    """Largest value, inclusive."""
    log: StrictBool = False
    """Sample on a logarithmic scale."""
    step: Number | None = None
    """Distance between neighbouring values; not together with log."""
    choices: Annotated[list[Scalar], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    """Values of a categorical parameter; numbers, strings, booleans and null may be mixed."""
    when: Annotated[dict[Name, Condition], Field(min_length=1, max_length=10)] | None = None
    """The parameter exists only where each of these other parameters has one of these values."""

    rules = (
        Rule(
            "float and int parameters need low and high",
            lambda p: p.type == "categorical" or (p.low is not None and p.high is not None),
            "self.type == 'categorical' || (has(self.low) && has(self.high))",
        ),
        Rule(
            "categorical parameters take no low, high, log or step",
            lambda p: p.type != "categorical" or (p.low is None and p.high is None and not p.log and p.step is None),
            "self.type != 'categorical' || (!has(self.low) && !has(self.high) && !(has(self.log) && self.log)"
            " && !has(self.step))",
        ),
        # CEL has no type for a list of mixed scalars and does not see it at all.
        Rule("categorical parameters need choices", lambda p: p.type != "categorical" or p.choices is not None),
        Rule("float and int parameters take no choices", lambda p: p.type == "categorical" or p.choices is None),
        # Optuna stores the place of a choice and finds it by equality.
        Rule(
            "each choice may be listed once; 1, 1.0 and true are the same",
            lambda p: p.choices is None or len(set(p.choices)) == len(p.choices),
        ),
        Rule(
            "low must not exceed high",
            lambda p: p.low is None or p.high is None or p.low <= p.high,
            "!has(self.low) || !has(self.high) || self.low <= self.high",
        ),
        Rule(
            "log needs a low above 0",
            lambda p: not p.log or p.low is None or p.low > 0,
            "!(has(self.log) && self.log) || !has(self.low) || self.low > 0.0",
        ),
        Rule(
            "log and step cannot be combined",
            lambda p: not (p.log and p.step is not None),
            "!(has(self.log) && self.log && has(self.step))",
        ),
        Rule("step must be above 0", lambda p: p.step is None or p.step > 0, "!has(self.step) || self.step > 0.0"),
        Rule(
            "an int parameter needs whole numbers for low, high and step",
            lambda p: p.type != "int" or all(v is None or float(v).is_integer() for v in (p.low, p.high, p.step)),
            "self.type != 'int' || ((!has(self.low) || double(int(self.low)) == self.low)"
            " && (!has(self.high) || double(int(self.high)) == self.high)"
            " && (!has(self.step) || double(int(self.step)) == self.step))",
        ),
    )


class SearchSpace(ApiModel):
    """What is searched, in exactly one form."""

    parameters: Annotated[dict[str, Parameter], Field(min_length=1, max_length=MAX_PARAMETERS)] | None = None
    """Hyperparameters by name, for every backend."""
    optuna: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=MAX_PARAMETERS)] | None = None
    """Optuna's suggest methods with their arguments: {learning_rate: {suggest_float: {low: 1e-6, high: 1e-4}}}."""
    ray: Annotated[dict[str, Any], Field(min_length=1, max_length=MAX_PARAMETERS)] | None = None
    """Ray Tune's domains with their arguments: {learning_rate: {loguniform: [1e-6, 1e-4]}}."""
    wandb: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """A W&B sweep configuration, verbatim."""
    sigopt: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_PARAMETERS)] | None = None
    """SigOpt's list of parameters, verbatim."""
    python: Entry | None = None
    """module:function in the worker's image. With backend optuna it is called as function(trial) for each trial and
    returns the hyperparameters by name (define-by-run); with another backend it is called once, with None, and returns
    that backend's own form of a space."""

    rules = (exactly_one("searchSpace", "parameters", "optuna", "ray", "wandb", "sigopt", "python"),)


class Budget(ApiModel):
    """When a study ends: at the limit that is reached first."""

    max_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Trials that end complete or pruned, over all worker groups together."""
    max_failed_trials: Annotated[int, Field(ge=0, le=1_000_000)] = 3
    """Failed trials that the study survives; one more ends it. Those that run again do not count."""
    timeout: Duration | None = None
    """Wall-clock time since the first trial began (90m, 6h), also while the study was suspended. Then no trial begins
    any more, and those that run are finished; trialTimeout bounds them."""
    gpu_hours: Number | None = None
    """Hours times GPUs of all trials together, whatever becomes of them. When they are used up no trial begins any
    more, and those that run are finished. Needs workers with GPUs."""

    rules = (
        Rule(
            "gpuHours must be above 0",
            lambda b: b.gpu_hours is None or b.gpu_hours > 0,
            "!has(self.gpuHours) || self.gpuHours > 0.0",
        ),
    )


class StudySpec(ApiModel):
    """A hyperparameter study: what is optimised, over which space, by which trials, on which workers."""

    objectives: Annotated[list[Objective], Field(min_length=1, max_length=MAX_OBJECTIVES)]
    """One, or several for a Pareto front."""
    scalarize: Scalarize | None = None
    """Turns several objectives into one for the sampler and the pruner; the storage and the status keep them all."""
    constraints: Annotated[list[Constraint], Field(max_length=MAX_CONSTRAINTS)] = Field(default_factory=list)
    """Bounds that the best trials keep."""
    backend: Literal["optuna", "ray", "wandb", "sigopt"] = "optuna"
    """Who proposes hyperparameters."""
    sampler: Algorithm | None = None
    """Absent: the backend's default; optuna's is auto, which chooses by the budget, the space and the objectives, and
    says in the status what it took and why."""
    pruner: Algorithm | None = None
    """Absent: no trial is pruned. Only for one objective, or several with scalarize."""
    search_space: SearchSpace | None = None
    """What is searched. May be absent with trial.script, whose hp_space it is then."""
    initial_trials: Annotated[list[dict[str, Any]], Field(max_length=MAX_INITIAL_TRIALS)] = Field(default_factory=list)
    """Hyperparameters by name that are tried first; the sampler chooses those that one leaves out."""
    warm_start_from: Annotated[list[WarmStart], Field(max_length=MAX_WARM_STARTS)] = Field(default_factory=list)
    """Studies of the same storage whose complete trials the sampler learns from; they count for nothing else."""
    budget: Budget = Budget()
    """When the study ends."""
    retries: Retries = Retries()
    """How often the hyperparameters of a trial that failed run again, by the class of failure."""
    stop_when: StopWhen | None = None
    """Ends the study before its budget; for one objective, or several with scalarize."""
    trial_timeout: Duration | None = None
    """How long a trial may take from its start to its end (90s, 1h30m); one that takes longer is ended on all its ranks
    and has failed."""
    parallelism: Annotated[int, Field(ge=1, le=1000)] = 1
    """Worker groups that run trials side by side."""
    trial: Trial
    """What a trial is."""
    workers: Workers = Workers()
    """The shape of a worker group."""
    checkpoints: Checkpoints | None = None
    """Absent: no trial leaves a checkpoint, and one that lost its worker starts again from its first step."""
    storage: Storage | None = None
    """Absent: the storage that the operator provides for the namespace."""
    on_success: OnSuccess | None = None
    """What follows when the study has succeeded; only for one objective, or several with scalarize. In clusters."""
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the recorded trials when the HPStudy is deleted. Retain: they stay in the storage, and the
    deletion waits for nothing. Delete: the workers end, then the study is removed from the storage, then the HPStudy
    goes; a storage that cannot be reached for ten minutes keeps it."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Seconds after which the HPStudy is deleted once it has succeeded or failed. Absent: it stays."""
    suspend: StrictBool = False
    """Stops the worker groups and frees what they hold; false again, and the study goes on. A trial that was running
    starts from its last checkpoint, or else anew."""

    rules = (
        Rule(
            "searchSpace is required; only a trial.script may bring its own",
            lambda s: s.search_space is not None or s.trial.script is not None,
            "has(self.searchSpace) || has(self.trial.script)",
        ),
        Rule(
            "checkpoints are not for trial.script, whose Trainer keeps its own: set save_strategy there",
            lambda s: s.checkpoints is None or s.trial.script is None,
            "!has(self.checkpoints) || !has(self.trial.script)",
        ),
        Rule(
            "workers.trialsPerPod other than 1 is not for trial.script, which asks for its trials itself",
            lambda s: s.workers.trials_per_pod == 1 or s.trial.script is None,
            f"!has(self.trial.script) || !has(self.workers) || {ONE_TRIAL.replace('self', 'self.workers')}",
        ),
        Rule(
            "workers.isolation inline is for trial.function and trial.transformers; the trials of a script share its "
            "processes anyway, and a command is a process of its own",
            lambda s: (
                s.workers.isolation == "process" or s.trial.function is not None or s.trial.transformers is not None
            ),
            "!has(self.workers) || !has(self.workers.isolation) || self.workers.isolation == 'process'"
            " || has(self.trial.function) || has(self.trial.transformers)",
        ),
        Rule(
            "a trial.command runs once on every node: workers.processesPerNode must be 1 or auto",
            lambda s: s.trial.command is None or s.workers.processes_per_node in (1, "auto"),
            "!has(self.trial.command) || !has(self.workers) || !has(self.workers.processesPerNode)"
            " || self.workers.processesPerNode == 'auto' || self.workers.processesPerNode == 1",
        ),
        Rule(
            "each objective needs a metric of its own",
            lambda s: len({canonical(o.metric) for o in s.objectives}) == len(s.objectives),
            "self.objectives.all(o, self.objectives.exists_one(other, other.metric == o.metric))",
        ),
        Rule(
            "metrics on test data (test_) are recorded, never optimised: take one of the validation data (eval_)",
            lambda s: (
                s.trial.transformers is None
                or not any(m.metric.startswith(TEST_PREFIX) for m in (*s.objectives, *s.constraints))
            ),
            f"!has(self.trial.transformers) || (self.objectives.all(o, !o.metric.startsWith('{TEST_PREFIX}'))"
            f" && (!has(self.constraints) || self.constraints.all(c, !c.metric.startsWith('{TEST_PREFIX}'))))",
        ),
        Rule(
            "scalarize.weights needs each metric of the objectives, and no other",
            lambda s: s.scalarize is None or s.scalarize.weights.keys() == {o.metric for o in s.objectives},
            "!has(self.scalarize) || (self.scalarize.weights.size() == self.objectives.size()"
            " && self.objectives.all(o, o.metric in self.scalarize.weights))",
        ),
        Rule(
            "a pruner needs exactly one objective, or scalarize",
            lambda s: s.pruner is None or s.is_scalar,
            "!has(self.pruner) || has(self.scalarize) || self.objectives.size() == 1",
        ),
        Rule(
            "stopWhen needs exactly one objective, or scalarize",
            lambda s: s.stop_when is None or s.is_scalar,
            "!has(self.stopWhen) || has(self.scalarize) || self.objectives.size() == 1",
        ),
        Rule(
            "onSuccess needs exactly one objective, or scalarize: of a Pareto front no trial is the best",
            lambda s: s.on_success is None or s.is_scalar,
            "!has(self.onSuccess) || has(self.scalarize) || self.objectives.size() == 1",
        ),
    )

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        """What no evaluation of the transformers form will have is refused here and not by each trial."""
        trial = self.trial.transformers
        if trial is not None and trial.compute_objective is None:
            known = dict.fromkeys((*trial.metric_names, *ALWAYS, DEFAULT_OBJECTIVE))
            for asked in (*(o.metric for o in self.objectives), *(c.metric for c in self.constraints)):
                if canonical(asked) not in known and not asked.startswith(TEST_PREFIX):
                    more = set(TASKS[trial.task].metrics) - set(trial.metric_names)
                    raise ValueError(
                        f"no trial will have the metric {asked}; there are {', '.join(known)}"
                        + (f", and by trial.transformers.metrics {', '.join(sorted(more))}" if more else "")
                    )
        return self

    @property
    def can_pack(self) -> bool:
        """Whether a group of one pod may run several trials side by side."""
        return self.workers.isolation == "process" and self.trial.script is None

    @property
    def is_scalar(self) -> bool:
        """Whether sampler and pruner see one number to optimise."""
        return len(self.objectives) == 1 or self.scalarize is not None

    def weighted_sum(self, values: Sequence[float]) -> float:
        """Of ``scalarize``: one number for a trial's values, lower is better.

        Args:
            values: one for each objective, in order.
        """
        assert self.scalarize is not None
        weights = self.scalarize.weights
        return sum(
            weights[objective.metric] * (value if objective.direction == "minimize" else -value)
            for objective, value in zip(self.objectives, values, strict=True)
        )


class Metadata(ApiModel, extra="ignore"):
    """The part of the object's metadata that a study uses."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=DNS_LABEL)]
    """A DNS label that begins with a letter."""
    namespace: str = "default"
    uid: str = ""


class Study(ApiModel, extra="ignore"):
    """An HPStudy object: a manifest, or what the API server returns."""

    api_version: Literal["hpstudy.io/v1alpha1"]
    kind: Literal["HPStudy"]
    metadata: Metadata
    spec: StudySpec

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_top_level(cls, value: Any) -> Any:
        if isinstance(value, dict) and (unknown := set(value) - {"apiVersion", "kind", "metadata", "spec", "status"}):
            raise ValueError(f"unknown field {', '.join(sorted(map(str, unknown)))}")
        return value
