"""What a caller may catch.

Every error that a user can cause is a `CrnnError`; its text is one sentence: what is wrong, where, how to put it right.
"""


class CrnnError(Exception):
    """Base of everything this package raises on purpose."""


class ImageError(CrnnError):
    """An image that cannot be read or is of no use."""


class PageError(CrnnError):
    """A document or a page of one that cannot be read or written."""


class CharsetError(CrnnError):
    """A charset that is not one, or a text with a character outside it."""


class LabelError(CrnnError):
    """A label that cannot be used: unreadable, empty, too long for its image."""


class DataError(CrnnError):
    """A data source that is missing, damaged or not recognised."""


class ModelError(CrnnError):
    """A model that is missing, damaged or does not fit."""


class ConfigError(CrnnError):
    """A setting that does not exist or has an impossible value."""


class EngineError(CrnnError):
    """An inference engine that is not installed or failed."""


class EngineWarning(UserWarning):
    """An engine does something else than it was asked for, because this machine cannot do that."""
