"""Mixed load with kills and outages for a long time."""
