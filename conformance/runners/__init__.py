"""Where a run's cases are carried out."""
