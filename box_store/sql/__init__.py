"""Views, macros and the documented queries over a store."""
