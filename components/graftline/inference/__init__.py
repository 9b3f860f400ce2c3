"""A frozen network over encoded images, as fast as this machine can."""
