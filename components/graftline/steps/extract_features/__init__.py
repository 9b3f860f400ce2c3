"""The step `extract_features`."""
