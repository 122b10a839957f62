"""The configuration: defaults, file, environment and flags, merged into frozen records.

`schema` is the only table of keys. All faults are reported together, each with the path of its key, what is wrong, and what
would be right. Secrets print as `***`.
"""
