"""Where big objects lie: files of their own on a local disk."""
