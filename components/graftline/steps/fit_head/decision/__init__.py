"""Whether fine-tuning is worth its cost for this data."""
