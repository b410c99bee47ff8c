"""stable-audio-tools' models: their configs, building them offline, loading weights without a silent mismatch."""
