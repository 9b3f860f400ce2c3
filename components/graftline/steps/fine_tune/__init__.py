"""The step `fine_tune`."""
