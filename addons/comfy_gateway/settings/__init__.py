"""Everything that can be set, read once and frozen.

``load`` reads environment > ``.env`` > the YAML or JSON file > defaults and gives one ``Settings`` tree, or
raises SettingsError with every fault at once. ``python -m comfy_gateway.settings --check`` does the same
for a person.
"""

from comfy_gateway.settings.load import SettingsError, load, load_users_file
from comfy_gateway.settings.model import Settings

__all__ = ["Settings", "SettingsError", "load", "load_users_file"]
