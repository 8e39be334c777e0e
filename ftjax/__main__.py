"""`python -m ftjax COMMAND ...`: the same as `ftjax COMMAND ...`."""

import sys

from ftjax.commands import main

if __name__ == "__main__":
    sys.exit(main())
