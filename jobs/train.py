"""Entry point for a cluster: `ray job submit --working-dir . -- python jobs/train.py --data TABLE --output OUT`."""

import sys

from mvpose.cli import run

if __name__ == "__main__":
    sys.exit(run(["train", "--address", "auto", *sys.argv[1:]]))
