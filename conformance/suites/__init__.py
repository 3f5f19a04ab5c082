"""The tests users run. Each module lists its cases; the plugin makes a test of each."""
