"""What the source says: files, names, what these mean, and what runs in a turn."""
