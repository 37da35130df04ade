"""What is known before a GPU is rented, and what ten minutes on one settle: see README.md."""
