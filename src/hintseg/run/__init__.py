"""The run folder: what its files are called and hold, for those who write it (`pipeline`) and those who read it."""
