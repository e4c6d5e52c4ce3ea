"""JSON schemas of responses, and the conversion of store records into them."""
