"""Export formats of PyTorch's, by way of the twin."""
