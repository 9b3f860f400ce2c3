"""The pipelines, the run file and the command `graftline`."""
