"""BaseNotifier: a callback that is an object with templated fields."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from roost.dag.template import Renderer

__all__ = ["BaseNotifier"]


class BaseNotifier:
    """A callback with settings of its own. Subclass it and write :meth:`notify` (H23).

    Give an instance to any ``on_*_callback``. The attributes that ``template_fields`` names are
    rendered before each call, in a copy.
    """

    template_fields: Sequence[str] = ()

    def notify(self, context: dict[str, Any]) -> None:
        """Tell somebody.

        Args:
            context: that of the task instance, with ``reason`` and ``exception``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no notify() method")

    def __call__(self, context: dict[str, Any]) -> None:
        """Render and notify."""
        made = copy.copy(self)
        renderer = Renderer(context["task"], context)
        for name in self.template_fields:
            setattr(made, name, renderer.field(name, getattr(self, name)))
        made.notify(context)
