"""One command for all: ``python -m benchmarks COMMAND``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

# Users ask for these …
COMMANDS = {
    "run": "benchmarks.run",
    "layers": "benchmarks.commands.layers",
    "compare": "benchmarks.commands.compare",
    "anytime": "benchmarks.commands.anytime",
    "instances": "benchmarks.commands.instances",
}
# … and these show what the project claims.
STUDIES = {
    "paper": "benchmarks.studies.paper",
    "proofs": "benchmarks.studies.proofs",
    "ablation": "benchmarks.studies.ablation",
    "limits": "benchmarks.studies.limits",
    "speed": "benchmarks.studies.speed",
    "regression": "benchmarks.regression.__main__",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; the exit code."""
    name, *rest = sys.argv[1:] if arguments is None else arguments
    module = import_module({**COMMANDS, **STUDIES}[name])
    code: int = module.main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
