"""`foveola teach`: a page on which a classifier is made of pictures, trained, tried and corrected."""
