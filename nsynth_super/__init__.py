"""Your own sounds for the Open NSynth Super.

From recorded notes to the pads the instrument plays, in three stages: `prepare` (notes to
embeddings, embeddings to a plan), `generate` (plan to clips), `pads` (clips to pads).
"""

import os

__version__ = "0.1.0"

# Threads that spin while they wait make a step a hundred times slower as soon as another program
# wants the same core; threads that sleep at once, half as fast for lack of being woken. So they
# spin for some microseconds (docs/performance.md). OpenMP reads this once, with PyTorch's import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
