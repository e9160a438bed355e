"""Samples to weights: batches, the loop, checkpoints, and the same loop on many workers. The home of ray.train."""
