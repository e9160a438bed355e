"""A run: the plan, the store of commits, tables, summary and verification of a job's results."""
