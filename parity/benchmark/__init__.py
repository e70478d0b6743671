"""Speed, measured: each contender against the others in one run."""
