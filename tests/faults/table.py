"""The campaign's table: what each row of it is, and what the last whole run of it found.

A run of some files of tests replaces their rows and leaves the others, each with its date.
"""

import re
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# file: (fault, how it is made, what must hold)
ROWS = {
    "test_commit_faults": (
        "SIGKILL, ENOSPC, EIO at every write, fsync, rename and link of a store's commit",
        "strace injection",
        "the old or the new state, never mixed; the next run goes on",
    ),
    "test_ingest_kill": (
        "SIGKILL at every write, fsync, rename, link of ingest",
        "strace injection",
        "everything in the store is whole; the rerun ends with the same snapshot",
    ),
    "test_ingest_races": (
        "two ingests of the same images at once; another one between any two writes of a commit",
        "threads, folder and S3 server",
        "what is kept is of one of them alone, and whole",
    ),
    "test_extract_kill": (
        "SIGKILL in feature extraction",
        "strace injection, signals",
        "only what was in flight is computed again; the same bytes",
    ),
    "test_feature_store_kill": (
        "SIGKILL, ENOSPC, EIO at every system call of the feature store",
        "strace injection",
        "nothing stored is lost or damaged",
    ),
    "test_promote_kill": (
        "SIGKILL before and after each write of a promotion",
        "signals, real MLflow server",
        "nothing or all; a second call finishes",
    ),
    "test_s3_kill": (
        "SIGKILL at the k-th S3 request, every k",
        "proxy before a real S3 server",
        "nothing partial is visible; the rerun's digests are the undisturbed ones",
    ),
    "test_fine_tune_kill": (
        "SIGKILL, SIGTERM at random moments of training",
        "signals",
        "weights and figures are equal bit for bit at the end, frozen blocks in OpenVINO or none",
    ),
    "test_damaged": (
        "newest checkpoint, feature part, shard, manifest cut or flipped at every sixteenth",
        "by hand",
        "named, rejected, recovered or a clear error; never used",
    ),
    "test_s3_storm": (
        "503 on 18%, resets, stalls, short bodies, flipped bits, lost acknowledgements: 30%",
        "proxy before a real S3 server",
        "the same snapshot or a typed error; no silent damage; at most 3 times the requests",
    ),
    "test_store_races": (
        "8 writers, 50 rounds; and on two servers that lose races",
        "S3 server, folder, proxy",
        "one winner always; the doctor refuses the others",
    ),
    "test_promotion_races": (
        "two promotions race, 200 rounds",
        "real MLflow server",
        "the better model holds the alias, always",
    ),
    "test_mlflow_away": (
        "MLflow cut off at each write, killed while registering",
        "signals, a line that is cut",
        "a typed error; the rerun registers once",
    ),
    "test_mlflow_slow": (
        "MLflow away, silent, answering 500 or 503, resetting",
        "proxy",
        "a typed error within 60 s",
    ),
    "test_memory": (
        "out of memory in a step or in one of its threads; a decoding worker killed",
        "29 limits on address space; SIGKILL, as the system sends it",
        "ends within 30 s with a cause, never hangs; no image is taken for a broken one",
    ),
    "test_step_killed": (
        "a step of a local run, or the process that starts the steps, killed",
        "SIGKILL, as the system sends it for lack of memory",
        "a step's death ends the run within 30 s with the cause; a step outlives its starter",
    ),
    "test_store_disk": (
        "full disk, read-only disk",
        "small tmpfs",
        "a typed error; earlier results intact",
    ),
    "test_clocks": (
        "clocks two hours off, both ways",
        "libfaketime",
        "nothing is ordered by the wall clock",
    ),
    "test_hostile_files": (
        "hostile images, tables, archives, run files, ONNX and safetensors files",
        "mutations of real files, seeds kept; a limit on memory, a canary",
        "documented errors only, bounded memory, nothing written outside, nothing executed",
    ),
    "test_fuzz": (
        "the same, led by coverage",
        "atheris, where it is installed; seeds kept",
        "documented errors only, memory below 3 GB, 20 s an input",
    ),
    "test_interrupt": (
        "Ctrl-C or SIGTERM in the middle of a run",
        "signals to its processes, and to the command alone",
        "it says so, and no process stays behind",
    ),
    "test_s3_odd_answers": (
        "answers that no S3 server gives: redirects in a circle, pages, wrong lengths, entities",
        "raw bytes over a socket, to each of 12 requests",
        "a typed error that says what to do, in time; never taken for an answer",
    ),
    "test_legacy": (
        "two versions of Graftline on one store",
        "a store that an earlier version wrote",
        "read, or refused with the version",
    ),
}
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


Row = tuple[str, str, str, str, str, str]
HEAD = ("fault", "how", "must hold", "tried", "found", "run")


def rows_of(stats: dict[str, list[Any]], before: str = "") -> list[Row]:
    """Fault, how, what must hold, how often it was tried, whether it held, and when.

    Args:
        stats: Reports by outcome, of pytest's terminal.
        before: An earlier table: rows that did not run stay as they were.
    """
    outcomes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    points: dict[str, int] = defaultdict(int)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in stats.get(outcome, []):
            row = Path(report.nodeid.partition("::")[0]).stem
            outcomes[row][outcome] += 1
            points[row] += sum(n for name, n in report.user_properties if name == "points")
    today = datetime.now(UTC).date().isoformat()
    earlier = _rows_in(before)
    found = []
    for name, (fault, how, holds) in ROWS.items():
        seen = outcomes[name]
        bad = seen["failed"] + seen["error"]
        if not seen["passed"] + bad:
            tried, verdict, when = earlier.get(fault, ("0", "not run", ""))
        else:
            tried, when = str(points[name] or seen["passed"] + bad), today
            verdict = f"{bad} FAILED" if bad else "held"
            if seen["skipped"]:
                verdict += f", {seen['skipped']} skipped"
        found.append((fault, how, holds, tried, verdict, when))
    return found


def _rows_in(text: str) -> dict[str, tuple[str, str, str]]:
    """What a table says was tried and found, and when, by fault."""
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {row[0]: (row[3], row[4], row[5]) for row in rows if len(row) == len(HEAD)}


def markdown(rows: list[Row]) -> str:
    """The table as it is in docs/reliability.md."""
    lines = (" | ".join(row) for row in [HEAD, ("---",) * len(HEAD), *rows])
    return "\n".join(f"| {line} |" for line in lines)


def write_into(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    whole = path.read_text(encoding="utf-8")
    pattern = f"{re.escape(BEGIN)}.*{re.escape(END)}"
    path.write_text(
        re.sub(pattern, lambda _: f"{BEGIN}\n{text}\n{END}", whole, flags=re.S), encoding="utf-8"
    )
