"""How far weights move in a step, by which loss, and their average."""
