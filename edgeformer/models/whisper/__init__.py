"""Whisper: its modules, programs, generation settings and the silence behind a short clip."""
