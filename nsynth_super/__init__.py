"""Make your own sounds for the Open NSynth Super.

Three stages turn recorded notes into the pads that the synth plays: `prepare` (notes to embeddings
and a plan), `generate` (plan to clips) and `pads` (clips to pads).
"""

import os

__version__ = "0.1.0"

# Spin for a few microseconds, then sleep (docs/performance.md). Threads that only spin slow a step
# down a hundredfold when another program needs the core; threads that sleep at once halve the speed
# because waking them takes time. OpenMP reads these variables once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
