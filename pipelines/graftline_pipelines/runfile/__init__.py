"""The run file: its settings, how it is read, and its reference."""
