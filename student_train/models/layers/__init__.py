"""The parts that students of several families are built from."""
