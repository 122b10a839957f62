"""Makes a release out of a checkout, as release.yml declares it; `scripts/release` starts it."""
