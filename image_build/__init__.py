"""What `build.py` must know of a machine, a definition and a program to build the image."""
