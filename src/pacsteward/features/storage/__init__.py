"""Taking images in."""
