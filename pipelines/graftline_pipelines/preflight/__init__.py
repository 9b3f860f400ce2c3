"""What can be known about a run file before anything runs."""
