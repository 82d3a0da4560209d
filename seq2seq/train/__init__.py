"""Training: loss, optimizer, checkpoints, metrics, processes, and the loop."""
