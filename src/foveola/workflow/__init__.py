"""The main job, end to end: what the commands and the Python interface share."""
