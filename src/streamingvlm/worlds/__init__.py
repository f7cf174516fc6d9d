"""Made-up worlds: what happens, what it looks like, what is true, how words on it are scored (`match.scoring`; see `evaluation`). Knows no model."""
