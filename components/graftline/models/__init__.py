"""Networks by name: what there is, how one is built, its blocks and its input sizes."""
