"""Labelled images: sources, shards in the store, dataset snapshots and their changes."""
