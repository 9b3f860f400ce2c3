"""A training's state in the store, from which a killed one goes on."""
