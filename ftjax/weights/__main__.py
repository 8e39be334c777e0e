"""Fetch official weights from the command line, e.g. on the login node of a cluster.

`python -m ftjax.weights fetch effnetb0 [--top]` and `python -m ftjax.weights list`: the
same as `ftjax weights`. Exit codes: 0 done; 2 bad arguments or no file.
"""

import sys

from ftjax.cli.weights import main

if __name__ == "__main__":
    sys.exit(main())
