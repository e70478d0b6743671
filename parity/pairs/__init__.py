"""Any PyTorch module beside any JAX function."""
