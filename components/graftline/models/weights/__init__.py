"""Pretrained weights: where they are, how they are read and fitted to a network."""
