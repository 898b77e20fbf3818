"""Search one's own notes, pages and messages on the device itself, by meaning and by words."""

from asterisk.search.index import Hit, Index, Status

__all__ = ["Hit", "Index", "Status"]
