"""The step `export_onnx`."""
