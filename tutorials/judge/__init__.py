"""The judge of the puzzles: `check.check(1)` judges a file, `shelf.shelf()` lists puzzles, `puzzle.Puzzle` defines one.

Nothing is imported here, because the learner's process imports its own part of this package and nothing more.
"""
