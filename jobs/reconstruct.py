"""Entry point for a cluster: `ray job submit --working-dir . -- python jobs/reconstruct.py ARCHIVE --output OUT`.

Exit code 0 if the run is complete by its own rule (`--max-failed-share`), since a scheduler takes 3 for a failure.
"""

import sys

from mvpose.cli import run

sys.exit(run(["reconstruct", "--address", "auto", "--exit-zero", *sys.argv[1:]]))
