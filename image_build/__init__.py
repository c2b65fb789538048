"""Build the container image: what `build.py` checks and runs."""
