"""Lightweight components that tests write."""

import json


def component(body: str) -> list[str]:
    """The command of a lightweight component, as KFP's local runner makes it."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    source = f"from kfp import dsl\n\ndef work(text: str):\n{lines}"
    inputs = {
        "inputs": {"parameterValues": {"text": "told"}},
        "outputs": {"outputFile": "out/result.json"},
    }
    script = 'printf "%s" "$0" > "$program_path/ephemeral_component.py"\npython3 -m kfp "$@"\n'
    arguments = ["--executor_input", json.dumps(inputs), "--function_to_execute", "work"]
    return ["sh", "-ec", script, source, *arguments]
