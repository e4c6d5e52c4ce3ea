"""The completeness ledger: from cycle reports to numbers of expected, received and missing samples, and why they are missing."""
