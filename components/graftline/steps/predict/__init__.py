"""Batch prediction: many images through an exported model, into one table."""
