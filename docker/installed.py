"""Closes an image's environment: checks it and writes down what it holds.

    installed.py ENVIRONMENT CYCLONEDX TARGET [--needs-cuda]

Writes under TARGET `share/graftline/sbom.cdx.json` (CycloneDX) and `share/graftline/build.json`
(Python, torch, CUDA and NCCL as installed: whether torch brings CUDA is never left to guessing).
"""

import json
import subprocess
import sys
from pathlib import Path

LOOK = """
import importlib.metadata, json, platform
found = {"python": platform.python_version(), "torch": None, "cuda": None, "nccl": None}
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    found.update(torch=torch.__version__, cuda=torch.version.cuda)
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
found["packages"] = len(list(importlib.metadata.distributions()))
print(json.dumps(found))
"""


def main(environment: Path, cyclonedx: str, target: Path, *, needs_cuda: bool) -> None:
    """Check and describe the environment."""
    python = str(environment / "bin" / "python")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "check"], check=True)
    found = json.loads(subprocess.run([python, "-c", LOOK], check=True, capture_output=True).stdout)
    if needs_cuda and not (found["cuda"] and found["nccl"]):
        sys.exit(f"The gpu image needs torch with CUDA and NCCL, but this is {found}")
    if found["cuda"] and not needs_cuda:
        print(f"NOTE: torch {found['torch']} brings CUDA {found['cuda']} into an image without GPU")
    share = target / "share" / "graftline"
    share.mkdir(parents=True)
    (share / "build.json").write_text(json.dumps(found, indent=1) + "\n")
    sbom = str(share / "sbom.cdx.json")
    command = [cyclonedx, "environment", "--output-format", "JSON", "--output-file", sbom]
    subprocess.run([*command, python], check=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), needs_cuda="--needs-cuda" in sys.argv[4:]
    )
