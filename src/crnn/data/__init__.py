"""Labelled images: opened from any layout, checked, prepared, streamed."""
