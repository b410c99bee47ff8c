"""From tables to what people read: pages, the model card, pictures."""
