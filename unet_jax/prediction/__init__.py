"""What `scripts/predict.py` does, and `unet_jax.load`."""
