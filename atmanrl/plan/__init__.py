"""Plans: memory, time and GPU-hours of a run, before a machine is rented for it."""
