"""hintseg: from cheap hints to pixel masks."""
