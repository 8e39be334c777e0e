"""Which layers should I train with so many images, and which network?

    python -m experiments.advise --data my_images --model effnetlite0 effnetlite1

The same as `ftjax advise`. Exit codes: 0 done, 1 some trials failed, 2 bad arguments or
input.
"""

import sys

from ftjax.cli.advise import main

if __name__ == "__main__":
    sys.exit(main())
