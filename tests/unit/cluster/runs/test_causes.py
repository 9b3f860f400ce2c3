"""What the words of Argo, Kubernetes and the launcher mean."""

import pytest

from graftline_pipelines.cluster.runs.causes import explain, launcher_error, own_error


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("main: OOMKilled (exit code 137)", "ran out of memory"),
        ("failed to execute component: exit status 137", "ran out of memory"),
        ("main: Error (exit code 137)", "was killed (SIGKILL)"),
        ("main: Error (exit code 143)", "was preempted"),
        ("pod deleted", "node vanished"),
        ("The node was low on resource: memory.", "node vanished"),
        ("Pod was rejected: UnexpectedAdmissionError", "node vanished"),
        ("Node is shutting down: node shutting down", "node vanished"),
        ("Step exceeded its deadline", "took longer"),
        ("wait: Error (exit code 64): failed to put file", "could not save"),
        ("init: Error (exit code 1)", "could not start"),
    ],
)
def test_what_it_means(said: str, means: str) -> None:
    cause = explain(said)
    assert cause is not None and means in cause[0]


def test_a_steps_own_exit_code_says_nothing() -> None:
    assert explain("main: Error (exit code 1)") is None


def test_the_last_word_of_the_step_and_of_the_launcher() -> None:
    log = (
        "F1125 19:39:45.416906      14 main.go:59] an earlier word\n"
        "ERROR in step ingest: No images.\nWhy: The prefix is empty.\n"
        "F1125 19:39:46.416906      14 main.go:59] failed to execute component: exit status 1\n"
    )
    assert own_error(log) == "No images.\nWhy: The prefix is empty."
    assert launcher_error(log) == "failed to execute component: exit status 1"
    assert launcher_error("F1 is a racing series") is None
