"""Scenes, teachers, store, students and the comparison, from nothing."""
