"""Container engine, images, options of a cell's container, and Buildkite's pipeline."""
