"""How doubtful a mask is, without truth: measures of one photo, and the list of what to look at first."""
