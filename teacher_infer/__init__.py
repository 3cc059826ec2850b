"""Teachers: detectors of any framework, shown a data set, their boxes kept in a box store.

`adapter` has the protocol that every detector is put behind, `service` the run, `cli` the commands.
Importing this package imports no framework; an adapter imports its own when a teacher is loaded.
"""
