"""An ONNX file in ONNX Runtime: whatever is in it, answers or an error that says what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from graftline import machine
from graftline.errors import ConfigurationError
from graftline.files import os_errors

EXPORTED = "Give a file that `graftline run` exported; copy it again if it was truncated."


class Session:
    """A graph that takes uint8 images.

    Args:
        path: The ``.onnx`` file.
        threads: Threads of one inference; all that this process may use when not given.
        providers: ONNX Runtime execution providers; the CPU when not given.

    Attributes:
        metadata: The file's own.
        outputs: Their names.

    Raises:
        ConfigurationError: There is no such file, or it cannot be loaded.
    """

    def __init__(
        self, path: Path, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        import onnxruntime

        if not path.is_file():
            raise ConfigurationError(
                f"There is no file {path}.",
                fix="Give the path of an exported model, such as .../onnx/model.onnx.",
            )
        with os_errors(str(path), "read"):  # ONNX Runtime says only the error's number
            path.open("rb").close()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or machine.cores()
        # A thread that spins takes the core of the one it waits for when other processes run.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers or ["CPUExecutionProvider"])
            )
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.outputs = frozenset(output.name for output in self._session.get_outputs())
        except Exception as error:  # onnxruntime has no public base class for its errors
            raise ConfigurationError(
                f"{path} cannot be loaded as an ONNX model.", why=_first_line(error), fix=EXPORTED
            ) from error

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Named outputs, numbers with a row for each image.

        Raises:
            ConfigurationError: The graph does not answer so.
            MemoryError: It asks for more memory than there is.
        """
        try:
            found = self._session.run(list(names), dict(feed))
        except Exception as error:
            if machine.is_out_of_memory(error):
                raise MemoryError(f"{self._path}: {_first_line(error)}") from error
            raise self._wrong(_first_line(error)) from error
        rows = len(next(iter(feed.values())))
        for name, answer in zip(names, found, strict=True):
            if not isinstance(answer, np.ndarray) or answer.dtype.kind not in "fiu":
                raise self._wrong(f"its output {name} holds no numbers")
            if answer.ndim == 0 or len(answer) != rows:
                raise self._wrong(f"its output {name} has the shape {answer.shape}")
        return list(found)

    def _wrong(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path} does not answer as a model of Graftline's does.", why=why, fix=EXPORTED
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
