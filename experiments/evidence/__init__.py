"""Is saliency more than brevity? Arms, seeds, a queue that survives, and the analysis; `protocol.md` came first."""
