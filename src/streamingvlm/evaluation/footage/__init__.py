"""Somebody's own footage against somebody's own boxes."""
