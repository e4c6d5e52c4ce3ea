"""Money: from quantities and prices to the lines and totals of a statement, in exact decimals."""
