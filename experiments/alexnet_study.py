"""Which settings does a small set of images need? The second paper's study, measured.

    python -m experiments.alexnet_study --model alexnet --weights mine.safetensors
    python -m experiments.alexnet_study --model effnetlite0 --data-dir DIR --quick

The same as `ftjax alexnet-study`. Exit codes: 0 done, 1 some trials failed, 2 bad
arguments or input.
"""

import sys

from ftjax.cli.alexnet_study import main

if __name__ == "__main__":
    sys.exit(main())
