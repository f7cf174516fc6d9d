"""The `streamingvlm` command: one module a verb. Knows everything below; nothing knows it. Door: `main.main`."""
