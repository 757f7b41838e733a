"""The page where a person looks at the masks of a run, mends them, and lets the model learn from it."""
