"""Stages on a run folder: what each needs and makes, and how a stopped run goes on."""
