"""The training step, checkpoints, and logs."""
