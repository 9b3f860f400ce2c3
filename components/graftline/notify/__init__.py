"""The step `notify`."""
