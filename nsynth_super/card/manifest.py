"""manifest.json: what the pads of a folder are, with their hashes; of one pack, or of a card.

`pads` writes it beside a pack's pads, `install` beside a card's, with one entry in `packs` for each
pack whose pads lie there. Both say `geometry` and `pads`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsynth_super.device import Geometry
from nsynth_super.files import explained
from nsynth_super.problems import BadInput, Problem

NAME = "manifest.json"
_PROVENANCE = ("made_by", "plan", "settings", "seed", "checkpoint")


@dataclass(frozen=True)
class Manifest:
    """The pads of a folder.

    Attributes
    ----------
    geometry : Geometry
        Of every one of them.
    pads : dict of str to str
        sha256 by file name.
    packs : list of dict
        What each pack was made from, and under `pads` the names of its pads.
    described : mapping
        The geometry in the file's own words.
    """

    geometry: Geometry
    pads: dict[str, str]
    packs: list[dict[str, Any]]
    described: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Read a manifest.json; None if there is none.

        Raises
        ------
        BadInput
            If it is no manifest.
        Failed
            If it cannot be read.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            pads = {str(name): str(digest) for name, digest in raw["pads"].items()}
            if not all(_is_pad(name) for name in pads):
                raise ValueError
            said = raw["geometry"]
            geometry = Geometry(
                int(said["resolution"]),
                tuple(int(pitch) for pitch in said["pitches"]),
                int(said["length"]),
                int(said["sample_rate"]),
            )
            one = {key: raw[key] for key in _PROVENANCE if key in raw} | {"pads": sorted(pads)}
            packs = [dict(pack, pads=list(pack["pads"])) for pack in raw.get("packs", [one])]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, path) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(
                Problem(str(path), "is damaged, or not ours", "remove it, then run install again")
            ) from None
        return cls(geometry, pads, packs, said)

    def beside(self, others: Manifest | None, gone: Iterable[str]) -> Manifest:
        """Return a card's manifest of this pack and `others`, without those that are `gone`."""
        if others is None:
            return self
        left = others.pads.keys() - self.pads.keys() - set(gone)
        packs = [
            {**pack, "pads": kept}
            for pack in others.packs
            if (kept := [name for name in pack["pads"] if name in left])
        ]
        pads = {name: others.pads[name] for name in others.pads if name in left} | self.pads
        return Manifest(self.geometry, pads, packs + self.packs, self.described)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a card's manifest.json holds it."""
        return {
            "format": 1,
            "geometry": dict(self.described),
            "packs": self.packs,
            "pads": dict(sorted(self.pads.items())),
        }


def _is_pad(name: str) -> bool:
    return name.endswith(".bin") and Path(name).name == name
