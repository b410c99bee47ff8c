"""From latents or audio to trained weights: the objective, the update, the state, and where each draw comes from."""
