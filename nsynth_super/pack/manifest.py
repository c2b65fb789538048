"""Read and build manifest.json: the geometry and hashes of the pads in a folder.

`pads` writes one next to the pads of a workspace, `install` next to those on a card. The card's has
an entry in `packs` for each pack that is installed there.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsynth_super import __version__
from nsynth_super.base.errors import BadInput, NsynthSuperError, Problem
from nsynth_super.base.files import explained
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import Settings

NAME = "manifest.json"
_PROVENANCE = ("made_by", "plan", "settings", "seed", "checkpoint")


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json.

    Attributes
    ----------
    geometry : Geometry
        Geometry of every pad.
    pads : dict of str to str
        sha256 by file name.
    packs : list of dict
        Provenance of each pack, with the names of its pads under `pads`.
    described : mapping
        The geometry as written in the file.
    """

    geometry: Geometry
    pads: dict[str, str]
    packs: list[dict[str, Any]]
    described: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Read a manifest.json; return None if it is missing.

        Raises
        ------
        BadInput
            If it is not a valid manifest.
        Failed
            If it cannot be read.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            pads = {str(name): str(digest) for name, digest in raw["pads"].items()}
            if not all(_is_pad(name) for name in pads):
                raise ValueError
            geometry = Geometry.from_dict(raw["geometry"])
            single = {key: raw[key] for key in _PROVENANCE if key in raw} | {"pads": sorted(pads)}
            packs = [dict(pack, pads=list(pack["pads"])) for pack in raw.get("packs", [single])]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, path) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(
                Problem(
                    str(path),
                    "is damaged or from another program",
                    "remove it and run install again",
                )
            ) from None
        return cls(geometry, pads, packs, raw["geometry"])

    @classmethod
    def of_workspace(cls, workspace: Workspace) -> Manifest | None:
        """Read the manifest of a workspace's pads; return None if it is missing or unusable.

        Without a manifest, pads count as unfinished: `pads` writes them again.
        """
        try:
            return cls.read(workspace.manifest)
        except NsynthSuperError:
            return None

    @classmethod
    def of_pack(cls, settings: Settings, plan: Plan, pads: Mapping[str, str]) -> Manifest:
        """Return the manifest of the finished pads of a plan.

        Parameters
        ----------
        settings : Settings
        plan : Plan
        pads : mapping of str to str
            sha256 by file name.
        """
        made_by = {
            "nsynth-super": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
        source = {
            "made_by": made_by,
            "plan": plan.identity,
            "settings": dict(plan.shaping),
            "seed": plan.seed,
            "checkpoint": plan.checkpoint,
            "pads": sorted(pads),
        }
        geometry = Geometry.of(settings)
        return cls(geometry, dict(pads), [source], geometry.as_dict())

    @property
    def plan(self) -> str | None:
        """Identity of the pads' plan; None if the pads belong to several packs."""
        return self.packs[0].get("plan") if len(self.packs) == 1 else None

    @property
    def shaping(self) -> dict[str, Any] | None:
        """`Settings.shaping` of the pack; None if the pads belong to several packs."""
        return self.packs[0].get("settings") if len(self.packs) == 1 else None

    def beside(self, others: Manifest | None, removed: Iterable[str]) -> Manifest:
        """Return a card's manifest of this pack and `others`, without the `removed` pads."""
        if others is None:
            return self
        left = others.pads.keys() - self.pads.keys() - set(removed)
        packs = [
            {**pack, "pads": kept}
            for pack in others.packs
            if (kept := [name for name in pack["pads"] if name in left])
        ]
        pads = {name: others.pads[name] for name in others.pads if name in left} | self.pads
        return Manifest(self.geometry, pads, packs + self.packs, self.described)

    def pack_dict(self) -> dict[str, Any]:
        """Return the content of a workspace's manifest.json."""
        (source,) = self.packs
        return {
            "format": 1,
            **{key: source[key] for key in _PROVENANCE},
            "geometry": dict(self.described),
            "pads": dict(self.pads),
        }

    def card_dict(self) -> dict[str, Any]:
        """Return the content of a card's manifest.json."""
        return {
            "format": 1,
            "geometry": dict(self.described),
            "packs": self.packs,
            "pads": dict(sorted(self.pads.items())),
        }


def _is_pad(name: str) -> bool:
    return name.endswith(".bin") and Path(name).name == name
