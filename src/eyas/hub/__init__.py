"""The model hub: resolve names to commits, download files, and check them against the hub's digests."""
