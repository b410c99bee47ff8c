"""Rendering: from prompts and weights to sound files and a table of them."""
