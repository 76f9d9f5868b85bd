"""Rows: where they come from, what shape they have, and what is counted about them."""
