"""The exported file: prediction, parity and serving, without PyTorch."""
