"""Graftline's steps and the modules they share."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("graftline")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"
