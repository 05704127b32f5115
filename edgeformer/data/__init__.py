"""Data that users bring: labelled texts and images, pairs, transcribed speech."""
