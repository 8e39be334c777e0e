"""Takes a trained trial to Keras or to safetensors.

    python -m experiments.export runs/resnet50-mine --depth 32 --format keras

The same as `ftjax export`. Exit codes: 0 done, 2 bad arguments or input.
"""

import sys

from ftjax.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
