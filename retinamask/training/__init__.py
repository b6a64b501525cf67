"""Training: batches with targets from the table, and one function that trains any detector."""
