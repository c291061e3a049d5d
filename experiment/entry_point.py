"""What every command shares: the packages it needs, how it is called, how a mistake ends."""

from __future__ import annotations  # an older Python must get as far as to say that it is too old

import functools
import os
import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from experiment.errors import UserError
from experiment.terminal import discard_output, end_with_reader

TRUSTED_PACKAGES = "TRUSTED_PACKAGES"
"""Environment variable: packages of the user's own that configurations may name, separated by commas."""

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "lightning": "lightning",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "torchmetrics": "torchmetrics",
    "tensorboard": "tensorboard",
    "numpy": "numpy",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
    "threadpoolctl": "threadpoolctl",
    "scipy": "scipy",
    "markdown": "markdown",
    "filelock": "filelock",
}
"""What has to be there: the name in an ``import`` → the name that pip knows."""


def trusted_packages() -> list[str]:
    """The packages of the user's own that configurations may name, see :data:`TRUSTED_PACKAGES`."""
    return [name for name in os.environ.get(TRUSTED_PACKAGES, "").replace(" ", "").split(",") if name]


def require_packages() -> None:
    """End the process with a way on where this Python is too old or lacks one of :data:`PACKAGES`."""
    is_old = sys.version_info < (3, 11)
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if not (is_old or missing):
        return
    version = ".".join(map(str, sys.version_info[:2]))
    lack = "is too old, 3.11 or newer is needed" if is_old else f"lacks {', '.join(missing)}"
    here, own = os.path.relpath(ROOT), ROOT / ".venv"
    if not (ROOT / "pyproject.toml").exists():  # installed without its dependencies
        ways = [f"python -m pip install {' '.join(missing)}"]
    elif own.exists() and Path(sys.prefix).resolve() != own:
        ways = [f"source {shlex.quote(os.path.relpath(own))}/bin/activate"]
    else:
        ways = [
            f"python -m pip install -e {shlex.quote(here)}",
            "make train   (makes an environment of its own)",
        ]
    script = Path(sys.argv[0]).name
    sys.stderr.write(
        f"error: {sys.executable} (Python {version}) {lack}.\n"
        f"       First:  {'   or   '.join(ways)}\n"
        f"       then:   {invocation(Path(script).stem.removeprefix('lic-')) if script else 'try again'}\n"
    )
    raise SystemExit(1)


def invocation(name: str) -> str:
    """How the user calls the entry point ``name``: ``python train.py``, or, installed, ``lic-train``."""
    is_console_command = Path(sys.argv[0]).name.startswith("lic-")
    return f"lic-{name}" if is_console_command else f"python {name}.py"


def argument(key: str, value: str) -> str:
    """``key=value`` as one can paste it: whole for the shell and for Hydra's grammar."""
    if not re.fullmatch(r"[\w./+~-][\w./+~ -]*[\w./+~-]|[\w./+~-]", value):
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
        value = f"'{escaped}'"
    return shlex.quote(f"{key}={value}")


def stop(error: UserError) -> NoReturn:
    """Print the message of ``error`` alone and exit with code 1."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Make ``main`` a command: a user's mistake becomes its message and exit code 1, Ctrl-C code 130."""

    @functools.wraps(main)
    def command() -> None:
        try:
            if trusted_packages():
                sys.path.append(str(Path.cwd()))  # where it often lies; last, so that it hides nothing
            if {"--cfg", "-c", "--info", "--hydra-help"} & set(sys.argv):
                end_with_reader()  # Hydra prints, and would show a traceback
            main()
        except UserError as error:
            stop(error)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except BrokenPipeError:  # `| head` has seen enough
            discard_output()
            raise SystemExit(141) from None

    return command
