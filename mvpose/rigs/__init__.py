"""Adjust or recover camera poses from the people seen."""
