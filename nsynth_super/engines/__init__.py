"""Engines that encode notes and decode clips: the PyTorch engine and the original Magenta."""
