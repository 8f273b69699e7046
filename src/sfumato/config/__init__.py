"""Settings: what there is, where they come from, and what is wrong with them."""

from sfumato.config.load import dump, load
from sfumato.config.recipe import recipe_names, recipe_summary, recipe_text
from sfumato.config.schema import Config, flat, identity, nested

__all__ = ["Config", "dump", "flat", "identity", "load", "nested", "recipe_names", "recipe_summary", "recipe_text"]
