"""Where can a network be cut, and what does a depth unfreeze?

    python -m experiments.cuts --model effnetb0 --depth 54

The same as `ftjax cuts`. Exit codes: 0 done, 2 bad arguments.
"""

import sys

from ftjax.cli.cuts import main

if __name__ == "__main__":
    sys.exit(main())
