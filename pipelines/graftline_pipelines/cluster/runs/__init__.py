"""What a run on a cluster does: its steps, pods, logs, and why one failed."""
