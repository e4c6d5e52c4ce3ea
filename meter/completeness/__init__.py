"""What is known of the lives of resources."""
