"""What a run takes, in memory, time and GPU-hours, before a machine is rented for it."""
