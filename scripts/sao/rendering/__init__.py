"""From prompts and weights to sound files and the table of them."""
