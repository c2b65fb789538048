"""The stages prepare, generate and pads, plus export; each writes only its own folder."""
