"""The Hugging Face Hub: fetch a model, place it, publish one."""
