"""From published or own files to manifests and splits. Never imports torch."""
