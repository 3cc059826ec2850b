"""What spans both halves of the project: whole runs from a file, the demo and the scenes it draws,
SQL over a store, scores of teachers, the doctor. `teach-detr --help` lists the commands.
"""
