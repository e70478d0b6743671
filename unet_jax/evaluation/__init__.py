"""What `scripts/evaluate.py` does."""
