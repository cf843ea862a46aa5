"""The drop-in for ``Trainer.hyperparameter_search``."""
