"""Made-up worlds: what happens, what it looks like, what is true of it, and how a commentary on it is scored. Knows no model."""
