"""Trained weights from any program to any other: what `scripts/convert_weights.py` does."""
