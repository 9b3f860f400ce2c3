"""From encoded bytes to pixels, and from pixels to the input of a network."""
