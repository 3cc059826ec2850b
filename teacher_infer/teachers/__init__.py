"""A teacher as asked for and as loaded: spec, views, class map."""
