"""What do several runs say together, and what does one rule for all cost?

    python -m experiments.compare runs/mine runs/food runs/dogs

The same as `ftjax compare`. Exit codes: 0 done, 2 bad arguments or input.
"""

import sys

from ftjax.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
