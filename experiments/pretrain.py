"""Trains a network from random weights, as a start for the other commands.

    python -m experiments.pretrain --model alexnet --data cifar10 --out mine.safetensors

The same as `ftjax pretrain`. Exit codes: 0 done, 1 the training failed, 2 bad arguments
or input.
"""

import sys

from ftjax.cli.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
