"""Results made readable: console, JUnit, HTML page, build annotation."""
