"""Label formats: one codec a file, found by name or recognised; others come as plug-ins."""
