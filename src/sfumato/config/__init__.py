"""Settings: what there is, where they come from, and what is wrong with them."""

from sfumato.config.load import SettingsError, dump, layer, load, read_settings
from sfumato.config.recipe import recipe_names, recipe_summary, recipe_text
from sfumato.config.schema import Config, flat, identity, nested

__all__ = [
    "Config",
    "SettingsError",
    "dump",
    "flat",
    "identity",
    "layer",
    "load",
    "nested",
    "read_settings",
    "recipe_names",
    "recipe_summary",
    "recipe_text",
]
