"""Training: from images and a recipe to a fitted classifier."""
