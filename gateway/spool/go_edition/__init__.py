"""What the Go edition left in its `cache_dir`, adopted at the first start."""
