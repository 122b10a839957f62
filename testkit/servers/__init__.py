"""The S3 servers that tests run, real ones and stand-ins, and the services of AWS that give credentials."""
