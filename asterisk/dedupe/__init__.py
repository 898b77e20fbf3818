"""Group the items of feeds that tell the same story; nothing is deleted."""

from asterisk.dedupe.feeds import Item, read_items
from asterisk.dedupe.stories import Deduplicator, Member, Pair, Story

__all__ = ["Deduplicator", "Item", "Member", "Pair", "Story", "read_items"]
