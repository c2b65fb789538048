"""The model: NSynth's WaveNet autoencoder (Magenta's `h512_bo16`), read off its variables."""
