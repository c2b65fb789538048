"""Train the bundled demo model: render notes, train the autoencoder, evaluate the sounds."""
