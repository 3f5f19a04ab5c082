"""The floors of the house, the wheel, and the tests that a change calls for."""
