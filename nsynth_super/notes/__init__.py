"""Source notes: reading, naming and tuning recordings, and importing them from SoundFonts."""
