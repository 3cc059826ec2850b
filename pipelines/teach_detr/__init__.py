"""What spans both halves of the project: the demo and the scenes it draws, SQL over a store, reports
on teachers, the doctor. `teach-detr --help` lists the commands.
"""
