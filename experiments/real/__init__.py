"""AtManRL on a language model that others have trained, SmolLM2-135M-Instruct: see README.md."""
