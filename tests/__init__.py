"""The suite's own tests, in a folder for each room of the house; helpers are in ``support``."""
