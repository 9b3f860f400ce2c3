"""Linear classifiers on frozen features, chosen by cross-validation."""
