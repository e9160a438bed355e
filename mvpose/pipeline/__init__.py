"""The batch job from archive to poses, as a plain loop or on Ray Data."""
