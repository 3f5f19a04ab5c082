"""The Buildkite pipeline of the matrix, made from the stack table."""
