"""Rendered training data: labelled crops drawn from fonts and texts. Never imports torch."""
