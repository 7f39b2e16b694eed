"""`foveola teach`: a page on this machine where pictures are collected, and a classifier is trained and tried."""
