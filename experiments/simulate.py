"""Does a search with few trials find the depth that a full grid finds?

    ftjax simulate --sweeps 20

The same as `ftjax simulate`; `simulate.md` has its tables. About half an hour of one
CPU core without arguments. Exit codes: 0 done, 2 bad arguments.
"""

import sys

from ftjax.cli.simulate import main

if __name__ == "__main__":
    sys.exit(main())
