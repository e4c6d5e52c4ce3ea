"""What the pages of statements and prices show, as records."""
