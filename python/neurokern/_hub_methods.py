"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` as methods of models.

People know these three as methods. What they do belongs to :mod:`neurokern.hub`, which stands above the
models and imports them; so the methods look it up when they are called. This is the one place that imports
upward.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar, cast

__all__ = ["HubMethods"]

Shared = TypeVar("Shared", bound="HubMethods")


class HubMethods:
    """Base of what can be shared: :class:`neurokern.models.MtM`, :class:`neurokern.adapters.AdaptedModel`."""

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> Path:
        """Write the model, its card and its scores into a folder that :meth:`from_pretrained` reads.

        Parameters
        ----------
        folder : path
        **options
            ``card``, ``metrics``, ``alignment``, ``sessions``, ``base``: see
            :func:`neurokern.hub.save_pretrained`, also for Raises.

        Returns
        -------
        folder : Path
        """
        from neurokern.hub import save_pretrained

        return save_pretrained(cast(Any, self), folder, **options)

    @classmethod
    def from_pretrained(cls: type[Shared], source: str | os.PathLike[str], **options: Any) -> Shared:
        """Read a model of this kind from a folder, or from a repository "owner/name" of the Hub.

        Parameters
        ----------
        source : path or str
        **options
            ``revision``, ``local_files_only``, ``device``, ``base``, ``token``, ``cache_dir``: see
            :func:`neurokern.hub.from_pretrained`, also for Raises.

        Returns
        -------
        model : MtM or AdaptedModel
            In evaluation mode.

        Raises
        ------
        TypeError
            If a model of another kind lies there.
        """
        from neurokern.hub import from_pretrained

        found = from_pretrained(source, **options)
        if not isinstance(found, cls):
            other = type(found).__name__
            raise TypeError(
                f"{cls.__name__}.from_pretrained: {source} holds another kind of model; use "
                f"{other}.from_pretrained, or neurokern.hub.from_pretrained for any"
            )
        return found

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model to a repository of the Hugging Face Hub, private unless told otherwise.

        Parameters
        ----------
        repo_id : str
            "owner/name".
        **options
            ``card`` (needed: license and data), ``private``, ``sessions``, ``token``, ``revision``,
            ``commit_message``, ``metrics``, ``alignment``, ``base``: see :func:`neurokern.hub.push_to_hub`,
            also for Raises.

        Returns
        -------
        url : str
            Of the commit.
        """
        from neurokern.hub import push_to_hub

        return push_to_hub(cast(Any, self), repo_id, **options)
