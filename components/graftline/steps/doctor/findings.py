"""What a probe found: what was tried, what came, what to do."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

from graftline.errors import GraftlineError
from graftline.redaction import redacted

State = Literal["ok", "note", "failed", "skipped"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        area: ``store``, ``mlflow``, ``kfp`` or ``machine``.
        tried: What was tried.
        state: ``failed`` stops a run; a ``note`` does not.
        came: What came of it.
        fix: What to do about it.
        seconds: How long it took.
    """

    area: str
    tried: str
    state: State
    came: str
    fix: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


class Problem(Exception):  # noqa: N818 -- a finding on its way, not an error of the program
    """What a probe raises to say that something is wrong and what to do."""

    def __init__(self, came: str, fix: str, *, note: bool = False) -> None:
        super().__init__(came)
        self.came, self.fix, self.note = came, fix, note


class Examination:
    """Collects findings. A probe that fails is a finding, whatever it raised."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def probe(self, area: str, tried: str, work: Callable[[], str]) -> bool:
        """Run one probe; whether it ended well. It returns what came."""
        started = time.monotonic()
        state: State = "ok"
        fix = ""
        try:
            came = work()
        except Problem as problem:
            came, fix = problem.came, problem.fix
            state = "note" if problem.note else "failed"
        except GraftlineError as error:
            what = error.what.rstrip(".")
            came = f"{what}: {error.why}" if error.why else error.what
            state, fix = "failed", error.fix or ""
        except Exception as error:
            came, state = f"{type(error).__name__}: {error}", "failed"
            fix = "This failure is unexpected: see the server's log."
        seconds = round(time.monotonic() - started, 2)
        self.findings.append(Finding(area, tried, state, redacted(came), redacted(fix), seconds))
        return state != "failed"

    def skip(self, area: str, tried: str, why: str) -> None:
        """Say what was not tried."""
        self.findings.append(Finding(area, tried, "skipped", why))

    @property
    def failed(self) -> list[Finding]:
        """What would stop a run."""
        return [each for each in self.findings if each.state == "failed"]
