"""What the controller, Kubernetes and the launcher say of a pod that failed, and what it means."""

import re

# In the order in which they are tried. A preempted step ends with 143: Argo sends SIGTERM to the
# whole process group. 137 is SIGKILL, which is a lack of memory only where Kubernetes says
# OOMKilled, or where the kernel took Python alone and the launcher lived to say so.
CAUSES = (
    (
        r"OOMKilled|failed to execute component: exit status 137",
        "The step ran out of memory.",
        "Raise `memory` of its pool, or lower the step's `batch_size`. Finished work is kept.",
    ),
    (
        r"exit code 143|exit status 143",
        "The step was preempted: its pod was asked to end (SIGTERM), as spot nodes and drained "
        "nodes do.",
        "Submit again: finished work is kept. For automatic retries the workflow controller needs "
        "a retry rule; see docs/cluster.md.",
    ),
    (
        r"ImagePullBackOff|ErrImagePull|manifest unknown|pull access denied",
        "The image could not be pulled.",
        "Check `images` and `cluster.pull_secrets`, and that the nodes reach the registry.",
    ),
    (
        r"[Pp]od (was )?deleted|[Ee]victed|node.*(shutdown|lost|preempt|shutting down|draining)"
        r"|[Pp]reempt|low on resource|UnexpectedAdmissionError",
        "The node vanished, as spot nodes do.",
        "Submit again: finished work is kept. For automatic retries the workflow controller needs "
        "a default retry strategy; see docs/cluster.md.",
    ),
    (
        r"DeadlineExceeded|exceeded its deadline|active deadline|specified deadline",
        "The step took longer than its pool allows.",
        "Raise `timeout` of its pool. Finished work is kept.",
    ),
    (
        r"exit code 137",
        "The pod was killed (SIGKILL), and Kubernetes names no reason. Most often its node was "
        "taken away.",
        "Submit again: finished work is kept. If it happens at the same place again, raise "
        "`memory` of its pool.",
    ),
    (
        r"wait: Error",
        "Argo could not save the pod's log or outputs.",
        "Check that the bucket of the workflow controller's artifact repository exists and that "
        "network policies let pods reach it.",
    ),
    (
        r"init: Error",
        "The pod could not start: Argo's init container failed.",
        "Submit again. If it happens again, see the pod: kubectl describe pod.",
    ),
    (
        r"Unschedulable|[Ii]nsufficient|didn't match.*(selector|affinity)|untolerated taint",
        "No node fits the step's pool.",
        "Compare the pool with `kubectl describe nodes`, or submit with --kube-context.",
    ),
    (
        r"SchedulingGated",
        "It waits in its Kueue queue.",
        "kubectl get workloads.kueue.x-k8s.io -n NAMESPACE shows what it waits for.",
    ),
    (
        r"CreateContainerConfigError|secret .* not found|configmap .* not found",
        "A secret or config map that the step needs is missing in its namespace.",
        "Create it, or correct `cluster.secrets` and `cluster.config_maps`.",
    ),
    (
        r"is forbidden: User",
        "The run's service account lacks a right.",
        "Give it the role of k8s/base, or name another account in `cluster.service_account`.",
    ),
)


def explain(text: str) -> tuple[str, str] | None:
    """What the controller's words mean: the cause and what to do, or None."""
    for pattern, cause, fix in CAUSES:
        if re.search(pattern, text):
            return cause, fix
    return None


def own_error(log: str) -> str | None:
    """The message that a step ended with, out of its log."""
    found = re.findall(r"^ERROR in step \w+: (.*(?:\n(?:Why|What to do): .*|\n  .*)*)", log, re.M)
    return found[-1].strip() if found else None


def launcher_error(log: str) -> str | None:
    """What the launcher or a driver of KFP ended with: the text of its last fatal line."""
    found = re.findall(r"^F\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] (.*)", log, re.M)
    return found[-1].strip() if found else None
