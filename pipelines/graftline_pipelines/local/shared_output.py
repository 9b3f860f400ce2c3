"""Standard output while KFP's local runner has it: threads of others keep theirs."""

import io
import sys
import threading
from typing import TextIO

from typing_extensions import override


class KfpOutput(io.TextIOBase):
    """What this thread and those that it starts print goes into a log.

    Args:
        log: The log.
    """

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log, self._shown = log, sys.stdout
        here = threading.get_ident()
        self._others = {one.ident for one in threading.enumerate()} - {here}

    def _of_this_thread(self) -> TextIO:
        return self._shown if threading.get_ident() in self._others else self._log

    @override
    def write(self, text: str) -> int:
        return self._of_this_thread().write(text)

    @override
    def flush(self) -> None:
        self._of_this_thread().flush()

    @override
    def isatty(self) -> bool:
        return self._of_this_thread().isatty()

    @override
    def fileno(self) -> int:
        return self._of_this_thread().fileno()
