"""One module a framework, the protocol they keep, and the registry that lists them."""
