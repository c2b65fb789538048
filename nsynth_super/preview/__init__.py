"""Preview of a pack in a browser: plays the same samples as the pads on the SD card."""
