"""What an evaluation is made of: parts that are kept, metrics, tables, a report."""
