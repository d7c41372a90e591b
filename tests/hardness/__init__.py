"""What an attacker outside can throw at the running product, and what must come of it."""
