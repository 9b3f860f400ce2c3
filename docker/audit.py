"""Looks up the pinned dependencies in the databases of known holes, by pip-audit.

    python docker/audit.py [CONSTRAINTS]

Fails where one has a known hole. Where the database cannot be reached it says SKIPPED, loudly, and
does not fail: a build without a network is not a build with holes.
"""

import json
import subprocess
import sys

SECONDS = 900


def main(constraints: str = "constraints.txt") -> int:
    """Print what was found; 1 where there is a known hole."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", constraints]
    command += ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--timeout", "10"], capture_output=True, text=True, timeout=SECONDS
        )
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        print(f"audit: SKIPPED, the database of known holes cannot be reached ({error})")
        return 0
    looked_up = [each for each in found if "skip_reason" not in each]
    holes = [(each, hole) for each in looked_up for hole in each.get("vulns", [])]
    for each, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {hole['id']}, fixed in {fixed}")
    if holes:
        print(f"audit: {len(holes)} known holes. Raise these versions in constraints.txt.")
        return 1
    if not looked_up:
        print(
            f"audit: SKIPPED, none of {len(found)} packages could be looked up: the database of "
            "known holes cannot be reached from here."
        )
        return 0
    missing = len(found) - len(looked_up)
    rest = f"; {missing} could not be looked up" if missing else ""
    print(f"audit: no known hole in {len(looked_up)} packages{rest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
