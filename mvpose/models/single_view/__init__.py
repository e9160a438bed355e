"""Networks that see one camera."""
