"""What each verb of the command line does: its flags are the fields of a dataclass, its work is a function."""
