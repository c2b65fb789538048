"""What made the model that is in the box: notes, the autoencoder over windows, training."""
