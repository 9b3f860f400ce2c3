"""Parts of benchmarks/decision.py."""
