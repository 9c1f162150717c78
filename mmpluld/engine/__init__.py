"""Running: config checks, safe checkpoints, resuming."""
