"""The pad in a browser: what is heard there is what the card will hold."""
