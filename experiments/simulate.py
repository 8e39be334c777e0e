"""Is what the product says true? Judged on made sweeps of which the truth is known.

    python -m experiments.simulate --out experiments/simulate.md

The same as `ftjax simulate`; `simulate.md` has its table. About ten minutes on two CPU
cores, one with --quick. Exit codes: 0 done, 2 bad arguments.
"""

import sys

from ftjax.cli.simulate import main

if __name__ == "__main__":
    sys.exit(main())
