"""Commands on one's own footage."""
