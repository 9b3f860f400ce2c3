"""The steps of the pipelines; no step imports another."""
