"""What does a table of depths and accuracies say, and what did the paper's say?

    python -m experiments.fit RESULTS.csv
    python -m experiments.fit runs/mine runs/food --general
    python -m experiments.fit --paper

The same as `ftjax fit`. Exit codes: 0 done, 2 bad arguments or input.
"""

import sys

from ftjax.cli.fit import main

if __name__ == "__main__":
    sys.exit(main())
