"""Who is champion, who was, and who replaced whom: a log that only one writer can extend.

MLflow moves an alias without comparing it with what it was, so of two promotions that read the
same champion both would win. The decision is therefore made here, in the store: entry ``n + 1``
of a model's log can be created once (``write_if_absent``), and the alias in MLflow follows the
log's last entry. Objects, all immutable::

    champions/<name>/00000007.json      version 12 replaced version 9, when, by whom, figures
    champions/<name>/00000007.settled   the alias was seen to follow this entry

An entry without its mark is a promotion that was interrupted after it had won; whoever comes
next moves the alias and sets the mark. An alias that differs from a *settled* entry was moved
by hand in MLflow; that is respected and put on record.
"""

import dataclasses
import getpass
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from graftline.errors import IntegrityError, SchemaVersionError
from graftline.storage import commit
from graftline.storage.base import Store

SCHEMA_VERSION = 1
Kind = Literal["promotion", "rollback", "moved by hand"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One change of champion.

    Attributes:
        number: Position in the log, from 1.
        kind: A promotion, a rollback, or an alias that was moved outside of Graftline.
        version: The champion since then; None where the alias was removed by hand.
        replaced: The champion before; None for the first.
        when: ISO 8601 in UTC.
        who: User and machine.
        run_id: Tracking run that promoted it.
        snapshot_id: Dataset snapshot that both were compared on.
        reasons: Sentences of the verdict, or the reason of a rollback.
        figures: What was measured of both.
        verdict: Digest of the verdict, so that none is applied twice.
        token: Tells this entry from all others.
    """

    number: int
    kind: Kind
    version: str | None
    replaced: str | None
    when: str = ""
    who: str = ""
    run_id: str = ""
    snapshot_id: str = ""
    reasons: tuple[str, ...] = ()
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verdict: str = ""
    token: str = ""


class ChampionLog:
    """The log of one registered model.

    Args:
        store: Where it is kept.
        name: The registered model.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store.child(f"champions/{quote(name, safe='')}")

    @property
    def uri(self) -> str:
        """Where the log is."""
        return self._store.uri

    def entries(self) -> list[Entry]:
        """All entries, the first one first."""
        return [self._read(number) for number in self._numbers()]

    def last(self) -> Entry | None:
        """The entry that says who is champion; None before the first."""
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def append(self, entry: Entry) -> bool:
        """Add an entry after the one that was read last.

        Args:
            entry: Its number is one more than the last one's; time and author are filled in.

        Returns:
            False where another writer has taken that number: the champion has changed.
        """
        stamped = dataclasses.replace(
            entry,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            who=_who(),
            token=uuid.uuid4().hex,
        )
        content = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(stamped)}
        return commit.create(self._store, _key(entry.number), content)

    def settle(self, number: int) -> None:
        """Say that the alias was seen to follow this entry."""
        self._store.write_if_absent(f"{number:08}.settled", b"")

    def is_settled(self, number: int) -> bool:
        """Whether the alias was ever seen to follow this entry."""
        return self._store.exists(f"{number:08}.settled")

    def _numbers(self) -> list[int]:
        names = (info.key.rpartition("/")[2] for info in self._store.list())
        return sorted(int(name[:8]) for name in names if name.endswith(".json"))

    def _read(self, number: int) -> Entry:
        content = commit.read(self._store, _key(number)).content
        version = content.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise SchemaVersionError(
                f"Entry {number} in {self.uri} was written under schema version {version}.",
                why=f"This version of Graftline reads schema version {SCHEMA_VERSION}.",
                fix="Use the Graftline version that wrote it, or a newer one.",
            )
        try:
            return Entry(**{**content, "reasons": tuple(content["reasons"])})
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"Entry {number} in {self.uri} is damaged: {error}.", fix="Restore it from a copy."
            ) from error


def _key(number: int) -> str:
    return f"{number:08}.json"


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
