"""How far is a run? What is done, running, failed and left; also while it runs.

    python -m experiments.status runs/resnet152-cifar10

The same as `ftjax status`. Exit codes: 0, 2 bad arguments or no run.
"""

import sys

from ftjax.cli.status import main

if __name__ == "__main__":
    sys.exit(main())
