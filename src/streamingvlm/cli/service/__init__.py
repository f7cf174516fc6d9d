"""Commands that look after a service that others use: its tokens, and what it keeps."""
