"""Entry point for a cluster: `ray job submit --working-dir . -- python jobs/reconstruct.py ARCHIVE --output OUT`."""

import sys

from mvpose.cli import run

sys.exit(run(["reconstruct", "--address", "auto", *sys.argv[1:]]))
