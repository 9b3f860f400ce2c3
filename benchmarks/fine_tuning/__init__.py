"""Parts of benchmarks/fine_tune.py."""
