"""What is asked of a Hugging Face model itself, each question in one place."""
