"""Training: arrays in, a fitted classifier out."""
