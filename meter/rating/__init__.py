"""Rating: from the samples and lives of a store to priced, signed statements."""
