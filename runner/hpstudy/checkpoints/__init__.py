"""Where trials leave their checkpoints."""
