"""What is asked about: targets, stacks and their cells, platforms, requests and selections."""
