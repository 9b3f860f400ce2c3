"""The steps of the pipelines; no step imports another."""

import os

from graftline import machine

# Before numpy or PyTorch is imported, whose pools read this once. No more threads than this
# container's share, where the libraries count the node's cores. And threads that wait sleep: a
# spinning one takes the core from the one it waits for as soon as another process runs beside.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(machine.cores()))
