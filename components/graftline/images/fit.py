"""How wide and tall pictures are fitted; apart, so that a run file is read without numpy."""

from typing import Literal

Fit = Literal["crop", "squash", "pad"]
