"""The laptop reproduction: a policy small enough to train on two cores, and the demo that compares two runs of it."""
