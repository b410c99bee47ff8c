"""stable-audio-tools' models: reading their configs, building them offline, checking and loading their weights."""
