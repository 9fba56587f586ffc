"""A report as one page of HTML: pure functions from a report to text."""
