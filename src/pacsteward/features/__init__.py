"""The rooms: each folder is one thing that an administrator does, from protocol to page."""
