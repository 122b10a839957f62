"""The crash matrix: every fault that can be produced here, and what became of each report and specimen."""
