"""What is on this image? Classifies files with a trained trial.

    python -m experiments.predict runs/effnetlite0-digits image.jpg

The same as `ftjax predict`. Exit codes: 0 done, 2 bad arguments or input.
"""

import sys

from ftjax.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
