"""Who may enter, and the book of what they did."""
