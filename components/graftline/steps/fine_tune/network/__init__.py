"""The network in two parts: the frozen blocks, and those that are trained."""
