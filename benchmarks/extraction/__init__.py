"""The sections of `benchmarks/features.py`."""
