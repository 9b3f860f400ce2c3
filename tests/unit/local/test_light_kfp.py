"""KFP without its client, in a process of its own: an import cannot be taken back."""

import subprocess
import sys


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LIGHT = "import sys\nfrom graftline_pipelines.local.light_kfp import import_light\n"


def test_the_client_is_imported_when_it_is_used() -> None:
    code = (
        f"{LIGHT}import_light()\n"
        "import kfp.local, kfp.compiler\n"
        "print('kubernetes' in sys.modules, 'kfp.client' in sys.modules)\n"
        "from kfp import Client\n"
        "import kfp.client\n"
        "print(Client is kfp.client.Client is kfp.Client, 'kubernetes' in sys.modules)\n"
        "print(hasattr(kfp, 'no_such_thing'))"
    )
    assert printed(code) == ["False", "False", "True", "True", "False"]


def test_an_imported_kfp_is_left_alone() -> None:
    code = (
        f"{LIGHT}import kfp\nbefore = dict(vars(kfp))\nimport_light()\nprint(before == vars(kfp))"
    )
    assert printed(code) == ["True"]
