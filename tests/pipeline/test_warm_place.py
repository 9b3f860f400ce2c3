"""A warm process that waits for the next run: found where it fits, and nowhere else."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.components import component

from graftline_pipelines.local import warm_place
from graftline_pipelines.local.warm import WarmServer, warm_process

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """The address of a process as this one would start it; what waits is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="warm") as cache:  # a socket's path must be short
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        monkeypatch.chdir(tmp_path)

        def find() -> Path:
            found = warm_place.address()
            assert found is not None
            return found

        yield find
        warm_place.end_others(find().parent)


def waiting(address: Path) -> bool:
    """Whether a process waits there, within some seconds."""
    deadline = time.monotonic() + 30
    while not address.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return address.exists()


def alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(process: int) -> bool:
    deadline = time.monotonic() + 30
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(process)


def lines_of(server: WarmServer, body: str, capsys: Any) -> list[str]:
    assert server.run(component(body), dict(os.environ)) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("told")]


def test_the_next_command_takes_the_process_with_its_own_environment(
    address: Callable[[], Path], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = WarmServer(address(), 1)
    body = "import os\nprint(text, os.getppid(), os.environ.get('GRAFTLINE_RUN_DIR'))"
    (line,) = lines_of(first, body, capsys)
    assert line == f"told {first.pid} None" and not first.waited
    first.close()
    assert waiting(address())
    monkeypatch.setenv("GRAFTLINE_RUN_DIR", "of this run")
    second = WarmServer(address(), 1)
    assert second.waited and second.pid == first.pid
    assert lines_of(second, body, capsys) == [f"told {first.pid} of this run"]
    second.close()
    assert waiting(address())


def test_only_this_user_may_reach_it(address: Callable[[], Path]) -> None:
    server = WarmServer(address(), 1)
    server.close()
    assert waiting(address())
    folder = address().parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert warm_place.address() is None
    folder.chmod(0o700)


@pytest.mark.parametrize("what", ["environment", "folder", "umask", "limit", "priority"])
def test_what_a_fork_cannot_change_is_another_address(
    address: Callable[[], Path], tmp_path: Path, what: str
) -> None:
    changed = {
        "environment": "os.environ['HTTPS_PROXY'] = 'http://elsewhere'",
        "folder": "os.mkdir('below'); os.chdir('below')",
        "umask": "os.umask(0o77)",
        "limit": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (900, 900))",
        "priority": "os.nice(3)",
    }

    def found(change: str) -> str:
        code = (
            "import os, sys\n"
            f"{change}\n"
            "from graftline_pipelines.local import warm_place\n"
            "print(warm_place.address())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert found("") == found("os.environ['SHLVL'] = '7'; os.environ['GRAFTLINE_FRESH'] = '1'")
    assert found("") != found(changed[what])


def test_changed_code_is_another_address(
    address: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "package"
    code.mkdir()
    (code / "module.py").write_text("A = 1\n")
    monkeypatch.setattr(warm_place.graftline, "__path__", [str(code)])
    before = address()
    os.utime(code / "module.py", ns=(1, 1))
    assert address() != before


def test_one_that_died_is_replaced(address: Callable[[], Path]) -> None:
    first = WarmServer(address(), 1)
    first.close()
    assert waiting(address())
    os.kill(first.pid, signal.SIGKILL)
    assert gone(first.pid) and address().exists()
    second = WarmServer(address(), 1)
    assert not second.waited and second.pid != first.pid
    second.close()
    deadline = time.monotonic() + 30
    while (third := WarmServer(address(), 1)).pid != second.pid and time.monotonic() < deadline:
        third.stays = False
        third.close()
    assert third.pid == second.pid
    third.close()


def test_two_commands_at_once_have_a_process_each(address: Callable[[], Path]) -> None:
    first = WarmServer(address(), 1)
    first.close()
    assert waiting(address())
    one, other = WarmServer(address(), 1), WarmServer(address(), 1)
    assert one.waited and not other.waited
    assert one.pid != other.pid
    one.close()
    other.close()
    assert waiting(address())


def test_of_all_that_wait_the_last_one_stays(
    address: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = WarmServer(address(), 1)
    first.close()
    assert waiting(address())
    monkeypatch.setenv("SOMETHING", "else")
    second = WarmServer(address(), 1)
    assert not second.waited
    second.close()
    assert waiting(address())
    assert gone(first.pid) and alive(second.pid)


def test_it_waits_no_longer_than_it_was_told(address: Callable[[], Path]) -> None:
    server = WarmServer(address(), 0.01)
    server.close()
    assert gone(server.pid)
    assert not address().exists()


def test_ctrl_c_reaches_the_step_and_leaves_the_process(
    address: Callable[[], Path], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFTLINE_WARM_MINUTES", "1")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with warm_process() as server:
        assert server is not None and server.apart

        def press() -> None:
            deadline = time.monotonic() + 60
            while not below(server.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1)  # the fork sets its signals
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            server.run(component(SLEEP), dict(os.environ))
        deadline = time.monotonic() + 30
        while below(server.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not below(server.pid)
        assert lines_of(server, "print(text)", capsys) == ["told"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("minutes", [0, 1])
def test_a_step_whose_command_died_is_told_to_end(
    address: Callable[[], Path], minutes: int
) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from graftline_pipelines.local.warm import WarmServer\n"
        "server = WarmServer(Path(sys.argv[1]), int(sys.argv[3]))\n"
        "print(server.pid, flush=True)\n"
        "server.run(eval(sys.argv[2]), dict(os.environ))\n"
    )
    command = [sys.executable, "-c", code, str(address()), repr(component(SLEEP)), str(minutes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        assert "begun\n" in process.stdout  # reads until it comes
        (step,) = below(server)
        process.kill()
    assert gone(step)
    assert waiting(address()) and alive(server) if minutes else gone(server)


def test_another_database_under_the_same_name_is_not_taken_for_the_open_one(
    address: Callable[[], Path], tmp_path: Path, capsys: Any, mlflow_sqlite: str
) -> None:
    from graftline.tracking.client import connect

    connect(mlflow_sqlite)
    first = WarmServer(address(), 1)
    first.open_tracking(mlflow_sqlite)
    body = "import sys\nprint(text, 'mlflow.store.tracking.sqlalchemy_store' in sys.modules)"
    while lines_of(first, body, capsys) != ["told True"]:
        pass
    first.close()
    assert waiting(address())
    taken = WarmServer(address(), 1)
    assert taken.pid == first.pid  # the file is the same
    taken.close()
    assert waiting(address())
    database = Path(mlflow_sqlite.removeprefix("sqlite:///"))
    sqlite3.connect(tmp_path / "other.db").close()
    (tmp_path / "other.db").replace(database)
    other = WarmServer(address(), 1)
    assert not other.waited and other.pid != first.pid
    assert gone(first.pid)
    other.close()
    assert waiting(address())


@pytest.mark.parametrize(
    ("variable", "ci", "terminal", "expected"),
    [
        ("", "", True, warm_place.MINUTES),
        ("", "", False, 0.0),
        ("", "true", True, 0.0),
        ("0", "", True, 0.0),
        ("2.5", "true", False, 2.5),
        ("-3", "", True, 0.0),
        ("soon", "", False, 0.0),
    ],
)
def test_it_waits_where_a_person_sits_or_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, ci: str, terminal: bool, expected: float
) -> None:
    monkeypatch.setenv("GRAFTLINE_WARM_MINUTES", variable)
    monkeypatch.setenv("CI", ci)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(warm_place, "_free", lambda: 4 * 2**30)
    assert warm_place.minutes() == expected
    monkeypatch.setattr(warm_place, "_free", lambda: 2**30)
    assert warm_place.minutes() == (expected if variable in ("2.5", "0", "-3") else 0.0)


def test_a_stranger_at_the_socket_is_given_nothing(address: Callable[[], Path]) -> None:
    server = WarmServer(address(), 1)
    server.close()
    assert waiting(address())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address()))
        connection.sendall(b"wha\n")
        connection.settimeout(10)
        assert connection.recv(16) == b""
    assert WarmServer(address(), 1).pid == server.pid  # it went on waiting


def below(process: int) -> list[int]:
    """Ids of the children of a process."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in found]
