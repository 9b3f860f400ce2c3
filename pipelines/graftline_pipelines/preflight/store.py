"""Whether a run may rely on its store: it can be written to, and of several writers one wins."""

import uuid
from typing import TYPE_CHECKING

from graftline.errors import StoreError

if TYPE_CHECKING:
    from graftline.storage.base import Store

ROUNDS = 2  # of 8 writers: Swift 2.38, the server known to lose races, lost each of 36


def check_store(uri: str) -> str:
    """Try the store; what came of it.

    Raises:
        StoreError: It cannot be written to, or two writers can win at once.
    """
    from graftline.machine import remember, remembered
    from graftline.storage import open_store

    store = open_store(uri)
    store.check_writable()
    client = getattr(store, "client", None)
    if client is not None:  # in a folder the operating system decides who is first
        key = {"store": store.uri, "server": client.meta.endpoint_url}
        if remembered("conditional_writes", key) is None:
            _race(store)
            remember("conditional_writes", key, {"rounds": ROUNDS})
    return f"{uri}, writable"


def _race(store: "Store") -> None:
    """Let 8 writers create, then replace, the same object; they take a second or two."""
    from graftline.steps.doctor.findings import Problem
    from graftline.steps.doctor.store_probes import WRITERS, race_to_create, race_to_replace

    below = store.child(f"doctor/{uuid.uuid4().hex}")
    try:
        race_to_create(below, WRITERS, ROUNDS)
        race_to_replace(below, WRITERS, ROUNDS)
    except Problem as problem:
        raise StoreError(
            f"{store.uri} does not decide between writers: {problem.came}", fix=problem.fix
        ) from None
    finally:
        for info in list(below.list()):
            below.delete(info.key)
