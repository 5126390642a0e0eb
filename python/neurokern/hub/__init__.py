"""Share models: folders of safetensors, JSON and a card, on a disk or on the Hugging Face Hub."""

from neurokern.hub.card import DataSource, ModelCard
from neurokern.hub.load import HubFolder, from_pretrained, read_folder
from neurokern.hub.push import push_to_hub
from neurokern.hub.save import save_pretrained

__all__ = [
    "DataSource",
    "HubFolder",
    "ModelCard",
    "from_pretrained",
    "push_to_hub",
    "read_folder",
    "save_pretrained",
]
