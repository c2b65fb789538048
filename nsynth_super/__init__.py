"""Your own sounds for the Open NSynth Super.

From recorded notes to the pads the instrument plays, in three stages: `prepare` (notes to
embeddings, embeddings to a plan), `generate` (plan to clips), `pads` (clips to pads).
"""

__version__ = "0.1.0"
