"""What do the stages look at, before and after fine-tuning, and does it tell the depth?

    python -m experiments.gradcam runs/effnetlite0-digits

The same as `ftjax gradcam`. Exit codes: 0 done, 2 bad arguments or input.
"""

import sys

from ftjax.cli.gradcam import main

if __name__ == "__main__":
    sys.exit(main())
