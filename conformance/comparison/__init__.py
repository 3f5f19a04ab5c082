"""What two builds or editions answer differently, how often and why."""
