"""What the fork server imports: all that a worker needs, and one thread, as the supervisor keeps it."""

import optuna
import torch

import hpstudy.training.function
import hpstudy.training.trainer
import hpstudy.worker.driver
import hpstudy.worker.launcher
import hpstudy.worker.rank
import hpstudy.worker.supervisor  # noqa: F401

torch.set_num_threads(1)
optuna.storages.RDBStorage("sqlite://").engine.dispose()  # imports alembic and the dialect, most of a second
