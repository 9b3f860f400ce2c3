"""What stops a command from outside, and what it says then: Ctrl-C, and SIGTERM alike."""

import os
import signal
import sys
import threading
from types import FrameType

STOPPED = 130  # typer's exit code for Ctrl-C
KEPT = ("run", "retrain", "race")  # commands that go on where they were stopped
_terminated = threading.Event()
_told = threading.Event()


def listen_to_sigterm() -> None:
    """Let SIGTERM stop a command as Ctrl-C does: by default Python dies without a word."""
    _told.clear()  # of an earlier command of this process
    here = threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    _terminated.set()
    raise KeyboardInterrupt


def told() -> None:
    """A command has said itself what its end means, as for a run elsewhere that goes on."""
    _told.set()


def say_stopped() -> int:
    """Say that the command was stopped and how to go on. Returns its exit code."""
    said = "\nStopped."
    if set(KEPT) & set(sys.argv[1:2]):
        again = "Run the same command again to continue."
        if "--fresh" in sys.argv:
            again = "Run it again, without --fresh, to continue."
        said += f" What was computed is kept. {again}"
    if not _told.is_set():
        print(said, file=sys.stderr)
    return 128 + signal.SIGTERM if _terminated.is_set() else STOPPED


def leave_threads(code: int) -> None:
    """End the process at once if a thread is still at work, such as a read of a mount that hangs.

    Python would wait for it: nothing that it does is needed any more.
    """
    here = threading.main_thread()
    if any(one is not here and not one.daemon for one in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
