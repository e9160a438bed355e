"""`python -m mvpose` is the `mvpose` command."""

from mvpose.cli import main

main()
