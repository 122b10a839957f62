"""The S3 store: conditional puts, uploads in parts that resume, and what counts as proof that an object is stored."""
