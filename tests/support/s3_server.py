"""moto's S3 server with atomic conditional writes: `python s3_server.py -H HOST -p PORT`.

Alone it looks whether an object is there and then writes, and lets two of eight writers win in one
of some hundred races: the doctor refuses such a server.
"""

import threading
from collections.abc import Callable
from typing import Any

from moto.s3.responses import S3Response
from moto.server import main

_ALONE = threading.RLock()


def alone(work: Callable[..., Any]) -> Callable[..., Any]:
    """One request of these at a time."""

    def serialised(*args: Any, **kwargs: Any) -> Any:
        with _ALONE:
            return work(*args, **kwargs)

    return serialised


if __name__ == "__main__":
    for name in ("_key_response_put", "_key_response_post", "_key_response_delete"):
        setattr(S3Response, name, alone(getattr(S3Response, name)))
    main()
