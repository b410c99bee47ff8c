"""From tables to pages, model cards and pictures."""
