"""What `scripts/export.py` does."""
