"""What the processes of a worker group say to one another: JSON over the links of channel.py.

Bytes and not objects are sent, so that nothing is ever unpickled from a network.

==================  =======================  ===============================================
from                to                       messages
==================  =======================  ===============================================
a pod's supervisor  the driver               Hello, Prepared, Invalid, Finished, Stopping
the driver          every pod's supervisor   Run, Abort, Exit
training rank 0     the driver               Begin, Progress, Report (answered by Answer), Result
rank 0, inline      the driver               the same, and Failed; the next trial's Run is the answer
rank 0 of a script  the driver               Begin, Idle: where trials may not take for ever
rank 0 that saves   the driver               Stoppable; after a Stop, which comes at any moment, Stopped
==================  =======================  ===============================================

Several trials may run side by side: what a supervisor and the driver say of one has its number, and a rank zero says
first, with Begin, whose line it is. Ranks that live for many trials have the number of the first.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hpstudy.trials.causes import Cause
from hpstudy.trials.channel import Link


class _Message(BaseModel):
    # A metric may be NaN, which JSON does not have and Python's does; null would be a metric that is missing.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Hello(_Message):
    """A supervisor is there; it may still have to prepare."""

    kind: Literal["hello"] = "hello"
    node: int


class Prepared(_Message):
    """What all trials share is in memory; trials may come. With what the pod has for them."""

    kind: Literal["prepared"] = "prepared"
    processes: int
    """Ranks of a trial in this pod."""
    cpus: int
    gpus: int
    """That torch sees."""
    held: int
    """GPUs that the pod holds: those of a command's program among them."""


class Invalid(_Message):
    """The study cannot run here, and trying again would not help."""

    kind: Literal["invalid"] = "invalid"
    reason: str
    message: str


class Finished(_Message):
    """The ranks of one node have ended; well, when there is no cause."""

    kind: Literal["finished"] = "finished"
    number: int
    cause: Cause | None = None


class Stopping(_Message):
    """The pod was told to end."""

    kind: Literal["stopping"] = "stopping"


class Run(_Message):
    """Train this trial, from the last checkpoint of the one that it ``continues``. It has place ``slot`` of the
    ``slots`` that share the pod."""

    kind: Literal["run"] = "run"
    number: int
    parameters: dict[str, Any]
    continues: int | None = None
    slot: int = 0
    slots: int = 1


class Abort(_Message):
    """End the ranks of this trial now."""

    kind: Literal["abort"] = "abort"
    number: int


class Exit(_Message):
    """The group's work is over; with a reason when the study is invalid."""

    kind: Literal["exit"] = "exit"
    reason: str | None = None
    message: str = ""


class Begin(_Message):
    """Rank zero of this trial is there; what follows on its line is of that trial, until it says this again."""

    kind: Literal["begin"] = "begin"
    number: int


class Idle(_Message):
    """The script has no trial in hand."""

    kind: Literal["idle"] = "idle"


class Progress(_Message):
    """Where training is: a share from 0 to 1."""

    kind: Literal["progress"] = "progress"
    share: float


class Report(_Message):
    """Metrics of an evaluation; of the ``past`` when the trial that this one continues made it."""

    kind: Literal["report"] = "report"
    step: int
    metrics: dict[str, Any]
    past: bool = False


class Answer(_Message):
    """To a report."""

    kind: Literal["answer"] = "answer"
    prune: bool


class DeviceMemory(BaseModel):
    """What a rank took of its GPU, in bytes: torch's allocator at its ``peak``, everything ``beside`` it (CUDA's
    context, and other programs), of the ``total``."""

    model_config = ConfigDict(frozen=True)

    peak: int
    beside: int
    total: int


class Stoppable(_Message):
    """The trial looks from now on whether it is asked to stop, and saves before it does."""

    kind: Literal["stoppable"] = "stoppable"


class Stop(_Message):
    """The trial's worker must go: save a checkpoint."""

    kind: Literal["stop"] = "stop"


class Stopped(_Message):
    """The checkpoint is published, and no rank does anything more."""

    kind: Literal["stopped"] = "stopped"


class Result(_Message):
    """The trial ran to its end, or obeyed a prune. ``memory`` where the rank used a GPU."""

    kind: Literal["result"] = "result"
    metrics: dict[str, Any]
    pruned: bool = False
    memory: DeviceMemory | None = None


class Failed(_Message):
    """The trial failed, and its ranks live on for the next."""

    kind: Literal["failed"] = "failed"
    cause: Cause


Message = (
    Hello
    | Prepared
    | Invalid
    | Finished
    | Stopping
    | Run
    | Abort
    | Exit
    | Begin
    | Idle
    | Progress
    | Report
    | Answer
    | Stoppable
    | Stop
    | Stopped
    | Result
    | Failed
)
_adapter: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def send(connection: "Link[bytes, bytes]", message: Message) -> None:
    """Send one message.

    Raises:
        OSError: the peer is gone.
    """
    connection.send_bytes(message.model_dump_json().encode())


def receive(connection: "Link[bytes, bytes]") -> Message:
    """Wait for one message.

    Raises:
        EOFError: the peer is gone.
        OSError: the connection broke.
    """
    return _adapter.validate_json(connection.recv_bytes())
