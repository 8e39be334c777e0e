"""How many top layers should I unfreeze? Trains at many depths and says.

    python -m experiments.sweep
    python -m experiments.sweep --model effnetlite0 --data my_images/ --seeds 3

The same as `ftjax sweep`. Exit codes: 0 all trials done, 1 some failed (listed), 2 bad
arguments or input, 3 a file cannot be read or written, 130 stopped by Ctrl-C.
"""

import sys

from ftjax.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
