"""The step `fit_head`."""
