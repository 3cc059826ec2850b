"""From a data set to the file of a run: a student, a schedule and class maps that fit it."""
