"""Wrong semantics on purpose: how many of them the tests of single instructions notice."""
