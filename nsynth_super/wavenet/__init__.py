"""NSynth's WaveNet autoencoder (Magenta's `h512_bo16`), with sizes inferred from its weights."""
