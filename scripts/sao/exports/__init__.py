"""Fine-tuned models and adapters in the forms of other programs."""
