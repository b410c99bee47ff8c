"""Turn a user's config into a resolved one: defaults from the schema, and one line of error for every mistake."""
