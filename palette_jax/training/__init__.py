"""What a training step is, and what it leaves behind."""
