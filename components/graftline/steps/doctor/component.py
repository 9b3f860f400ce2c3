"""KFP signature of the step ``doctor``: what a pod of a pool sees."""


def doctor(config: str, pool: str, pipeline_run: str = "") -> int:
    """Probe store, source, MLflow and the pod; the findings are in the pod's log.

    Args:
        config: Keyword arguments of the step, as JSON.
        pool: Name of the pool that this pod stands for.
        pipeline_run: Id of the pipeline run.

    Returns:
        How many probes failed. The step itself succeeds: a failed one would be tried again.
    """
    import json

    from graftline.steps.doctor.step import LINE, lines, run
    from graftline.steps.runtime import step

    with step("doctor"):
        findings = run(**json.loads(config))
    for each in findings:
        print(LINE + json.dumps({"pool": pool, **each.as_dict()}), flush=True)
    print("\n".join(lines(findings)), flush=True)
    return sum(each.state == "failed" for each in findings)
