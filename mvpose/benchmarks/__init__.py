"""Measurements a user can repeat: `mvpose benchmark NAME` prints a table and writes JSON."""
