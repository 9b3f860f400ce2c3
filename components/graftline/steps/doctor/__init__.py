"""Probes of what a run relies on: store, MLflow, this machine."""
