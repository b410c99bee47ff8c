"""From rendered sounds to embeddings, measures and intervals."""
