"""For type checkers: the calls that the package loads when they are first used."""

from graftline_pipelines.api import evaluate as evaluate
from graftline_pipelines.api import load as load
from graftline_pipelines.api import run as run

__version__: str
