"""What every package stands on: errors, streams, the disk, the clock."""
