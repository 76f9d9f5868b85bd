"""Everything that can be answered before the first byte is downloaded."""
