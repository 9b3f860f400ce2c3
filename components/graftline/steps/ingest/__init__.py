"""The step `ingest`."""
