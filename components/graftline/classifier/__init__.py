"""The classifier bundle: backbone, head, classes and temperature."""
