"""Objects from a folder of manifests, for one gateway alone."""

from federation.adapters.folder.files import manifest_files
from federation.adapters.folder.source import FolderError, FolderSettings, FolderSource

__all__ = ["FolderError", "FolderSettings", "FolderSource", "manifest_files"]
