"""The city: many cameras over one net of streets, deterministic and procedural. `world.City` is the door."""
