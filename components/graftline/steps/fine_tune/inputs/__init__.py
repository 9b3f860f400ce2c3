"""What the network trains on: images, their order, and the outputs of frozen blocks."""
