"""From what a user wrote to a resolved config: defaults from the schema, and one line for every mistake."""
