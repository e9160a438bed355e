"""Entry point for a cluster: `ray job submit --working-dir . -- python jobs/evaluate.py MODEL --data TABLE`."""

import sys

from mvpose.cli import run

if __name__ == "__main__":
    sys.exit(run(["evaluate", *sys.argv[1:]]))
