"""Small drawing helpers that the tasks' pictures share; matplotlib only, no OpenGL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import ArrayLike, NDArray

DARK, BLUE, ORANGE, GREEN, RED, LIGHT = "#333333", "#3b6ea8", "#d9822b", "#3a9a5b", "#c0392b", "#d8d8d8"


def picture_to_array(
    plot_state: Callable[[Any, Any], None], obs: Any, size: tuple[float, float] = (4.0, 4.0), dpi: int = 80
) -> NDArray[np.uint8]:
    """Draws one observation off screen, as an image.

    Args:
        plot_state: draws an observation into a matplotlib axes.
        obs: what `plot_state` takes, [D].
        size: width and height of the picture in inches.
        dpi: pixels per inch.

    Returns:
        RGB image, uint8 [height, width, 3].
    """
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plot_state(figure.add_subplot(), obs)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_vector(obs: Any, length: int) -> NDArray[np.float64]:
    """One observation (tensor, array or list) as a float64 array [length].

    Raises:
        ValueError: the observation has another shape.
    """
    vector = np.asarray(obs, dtype=np.float64)
    if vector.shape != (length,):
        raise ValueError(f"obs has shape {list(vector.shape)}, expected one observation [{length}]")
    return vector


def set_view(ax: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Shows the given part of the plane with equal scales and without ticks."""
    ax.set(xlim=x, ylim=y, aspect="equal", xticks=[], yticks=[])


def draw_rod(ax: Any, points: ArrayLike, color: str = ORANGE, width: float = 6.0, zorder: float = 3) -> None:
    """Draws a chain of thick rods through `points` [K, 2] with a small joint at every inner point."""
    xy = np.asarray(points, dtype=np.float64)
    ax.plot(
        *xy.T, color=color, linewidth=width, solid_capstyle="round", solid_joinstyle="round", zorder=zorder
    )
    if len(xy) > 2:
        ax.plot(*xy[1:-1].T, "o", color="white", markersize=width / 2.5, zorder=zorder + 0.1)


def draw_disc(ax: Any, center: ArrayLike, radius: float, color: str, **style: Any) -> None:
    """Draws a filled disc at `center` [2]."""
    x, y = np.asarray(center, dtype=np.float64)
    ax.add_patch(Circle((float(x), float(y)), radius, **{"facecolor": color, "zorder": 4, **style}))


def draw_box(ax: Any, left: float, bottom: float, width: float, height: float, color: str) -> None:
    """Draws a filled rectangle."""
    ax.add_patch(Rectangle((left, bottom), width, height, facecolor=color, edgecolor=DARK, zorder=2))


def draw_ground(ax: Any, center: float, half_width: float, height: float = 0.0, spacing: float = 0.5) -> None:
    """Draws a ground line around `center` with marks that stand still while the view moves along."""
    ax.axhline(height, color=DARK, linewidth=1.5, zorder=1)
    first, last = np.floor((center - half_width) / spacing), np.ceil((center + half_width) / spacing)
    marks = spacing * np.arange(first, last + 1)
    ax.vlines(marks, height - 0.06 * half_width, height, color=DARK, linewidth=1.0, zorder=1)


def turn(offset: ArrayLike, angle: float) -> NDArray[np.float64]:
    """An offset (x, z) [2] in the plane, turned by `angle` about the y axis as MuJoCo counts it.

    A positive angle turns the x axis downwards: (1, 0) becomes (cos, -sin).
    """
    x, z = np.asarray(offset, dtype=np.float64)
    return np.array([np.cos(angle) * x + np.sin(angle) * z, -np.sin(angle) * x + np.cos(angle) * z])
