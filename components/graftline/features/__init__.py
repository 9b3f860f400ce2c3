"""Stored features: parts in the store, the matrix of a snapshot, garbage collection."""
