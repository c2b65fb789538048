"""The hardware synth: its SD card, its settings, and installing and verifying packs."""
