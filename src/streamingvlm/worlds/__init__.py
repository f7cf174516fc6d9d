"""Made-up worlds: what happens, what it looks like, what is true of it and how it is scored."""
