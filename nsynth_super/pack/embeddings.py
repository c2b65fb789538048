"""Load and hash embeddings, and read the hashes of the note and weights behind each."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import read_array
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet.dimensions import HOP


def embedding_hash(embedding: NDArray[np.float32]) -> str:
    """Return the sha256 of an embedding's values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(embedding, dtype="<f4").tobytes()).hexdigest()


def load_embedding(workspace: Workspace, name: NoteName, width: int) -> NDArray[np.float32]:
    """Load one embedding.

    Parameters
    ----------
    workspace : Workspace
    name : NoteName
    width : int
        Channels of the model's embedding.

    Returns
    -------
    ndarray of float32, `[125, width]`

    Raises
    ------
    BadInput
        If it is missing, truncated or not finite.
    """
    path = workspace.embedding(name)
    array = read_array(path, "<f4", 2)
    shape = (NOTE_SAMPLES // HOP, width)
    if array is None or array.shape != shape or not np.isfinite(array).all():
        raise BadInput(
            Problem(str(path), "is missing or damaged", "run `nsynth-super prepare` again")
        )
    return np.asarray(array, dtype=np.float32)


def read_origins(workspace: Workspace) -> dict[str, dict[str, str]]:
    """Return the content of origins.json; an empty dict if it is missing or damaged."""
    try:
        origins = json.loads(workspace.origins.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origins if isinstance(origins, dict) else {}
