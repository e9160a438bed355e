"""Entry point for a cluster: `ray job submit --working-dir . -- python jobs/tune.py --config FILE --data TABLE ...`."""

import sys

from mvpose.cli import run

if __name__ == "__main__":
    sys.exit(run(["tune", "--address", "auto", *sys.argv[1:]]))
