"""The step `watch`."""
