"""The schedules of a cluster."""
