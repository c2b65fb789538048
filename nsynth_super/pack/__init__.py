"""The data of a pack: grid, plan, embeddings, blocks of clips, pad format and manifest."""
