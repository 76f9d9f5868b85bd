"""What is released, compared with what was trained."""
