"""A checkpoint's folder as it goes to the Hub."""

from pathlib import Path

from model_cards.hub_card import HubOptions
from training.hub.hub_folder import write_checkpoint

ROOT = Path(__file__).parent.parent


def make_hub_folder(checkpoint, folder) -> Path:
    """Writes what `training.publish` would push of a checkpoint."""
    folder.mkdir()
    write_checkpoint(checkpoint, folder, HubOptions(repo_id="someone/tiny", licence="apache-2.0"))
    return folder
