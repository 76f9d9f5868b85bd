"""Proof that a resumed run equals an uninterrupted one, bit for bit."""
