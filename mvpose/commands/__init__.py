"""Verbs of the command line: a dataclass holds the flags of a verb, and a function runs it."""
