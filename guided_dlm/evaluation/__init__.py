"""Figures about generated text: fluency under a judge, length, diversity."""
