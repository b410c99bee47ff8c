"""The Hugging Face Hub: fetch the files of a model, put them into place, publish a fine-tuned model."""
