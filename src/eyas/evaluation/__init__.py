"""Before and after, on rows that were held out."""
