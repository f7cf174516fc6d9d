"""StreamingVLM workbench: a vision-language model that watches an endless video with a compact cache."""
