"""Archive to poses: the batch job, as a plain loop and on Ray Data."""
