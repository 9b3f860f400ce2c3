"""MLflow: the run that all steps join, the model registry and the log of champions."""
