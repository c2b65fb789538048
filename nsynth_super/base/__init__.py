"""Foundations of every other package: files, paths, errors, text and resource limits."""
