"""What the fork server imports: all that a worker needs, and one thread, as the supervisor keeps it."""

import torch

torch.set_num_threads(1)
