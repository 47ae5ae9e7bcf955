"""Films: an episode of a task, or a search that closes in, drawn by matplotlib and saved as a GIF.

No window and no graphics driver is needed; only `mujoco_film`, which is a luxury, asks for OpenGL.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from mbrl_course.envs.task import Task
from mbrl_course.plotting import STYLE, plot_search

MAX_BYTES = 1_000_000
"""A film is made small enough to be kept in a notebook."""


class Film:
    """A GIF that a notebook shows, and that can be saved.

    Attributes:
        data: the bytes of the GIF.
        width: in pixels.
        title: said where pictures can't be shown.
    """

    def __init__(self, data: bytes, width: int, title: str = "") -> None:
        """Wraps the bytes of a GIF."""
        self.data, self.width, self.title = data, width, title

    def save(self, path: str | Path) -> Path:
        """Writes the GIF to `path`, makes its folder if need be, and returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data)
        return path

    def __repr__(self) -> str:
        """What a terminal shows."""
        return f"<Film {self.title!r}, {len(self.data) / 1e3:.0f} kB>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        text = base64.b64encode(self.data).decode()
        return f'<img alt="{self.title}" width="{self.width}" src="data:image/gif;base64,{text}">'


class SearchStep(NamedTuple):
    """One iteration of a search in the plane, for `search_film`."""

    population: Tensor  # [N, 2]
    elites: Tensor  # [K, 2]
    mean: Tensor  # [2], of the Gaussian that the population was drawn from
    std: Tensor  # [2]


def make_film(
    draw: Callable[[Axes, int], Any],
    num_frames: int,
    *,
    fps: float = 20,
    size: tuple[float, float] = (4.0, 4.0),
    dpi: int = 80,
    max_frames: int = 150,
    max_bytes: int = MAX_BYTES,
    title: str = "film",
    progress: bool = True,
) -> Film:
    """Draws frame after frame and makes a film of them.

    Args:
        draw: draws frame number i into empty axes.
        num_frames: how many frames there are.
        fps: frames per second; where frames are left out the film keeps its length.
        size: width and height in inches.
        dpi: pixels per inch.
        max_frames: of more frames only as many are drawn, evenly spread.
        max_bytes: a larger film is made smaller, pixel by pixel, until it fits.
        title: what the film shows, for readers who can't see it.
        progress: show a progress bar.

    Raises:
        ValueError: there are no frames.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, expected at least 1")
    numbers = np.unique(np.linspace(0, num_frames - 1, min(num_frames, max_frames)).round().astype(int))
    frames = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=dpi)
        canvas = FigureCanvasAgg(figure)
        for number in tqdm(numbers, desc=title, unit="frame", disable=not progress, leave=False):
            figure.clear()
            draw(figure.add_subplot(), int(number))
            canvas.draw()
            frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    return film_of_images(frames, fps=fps * len(numbers) / num_frames, max_bytes=max_bytes, title=title)


def film_of_images(
    images: Sequence[Image.Image | NDArray[np.uint8]],
    *,
    fps: float = 20,
    max_bytes: int = MAX_BYTES,
    title: str = "film",
) -> Film:
    """A film of pictures of the same size; the last one stays for a second.

    Args:
        images: Pillow images, or arrays [height, width, 3] of bytes.
        fps: frames per second; a GIF can't do more than 50.
        max_bytes: a larger film is made smaller until it fits.
        title: what the film shows.

    Raises:
        ValueError: there are no pictures.
    """
    frames = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
    if not frames:
        raise ValueError("images is empty, expected at least one picture")
    duration = max(20, round(1000 / fps))  # ms
    while True:
        data = _encode(frames, duration)
        width, height = frames[0].size
        if len(data) <= max_bytes or width < 120:
            return Film(data, width, title)
        frames = [
            frame.resize((width * 4 // 5, height * 4 // 5), Image.Resampling.LANCZOS) for frame in frames
        ]


def episode_film(
    task: Task,
    obs: ArrayLike | Tensor,
    *,
    rewards: ArrayLike | Tensor | None = None,
    every: int = 1,
    fps: float = 25,
    title: str = "",
    progress: bool = True,
) -> Film:
    """A film of an episode, drawn by the task's own `plot_state`.

    Args:
        task: the task, which needs a picture of a state.
        obs: the states one after the other, [T, D].
        rewards: where given, [T], the return so far stands above the picture.
        every: draw one of so many states; the title counts them all.
        fps: frames per second.
        title: stands above the picture; the task's name by default.
        progress: show a progress bar.

    Raises:
        ValueError: the task has no picture of a state, `obs` is not [T, D], or `every` is below 1.
    """
    plot_state = task.plot_state
    if plot_state is None:
        raise ValueError(f"task {task.name!r} has no picture of a state")
    states = torch.as_tensor(obs)
    if states.dim() != 2 or states.shape[1] != task.obs_dim:
        raise ValueError(f"obs has shape {list(states.shape)}, expected [T, {task.obs_dim}]")
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1")
    returns = None if rewards is None else torch.as_tensor(rewards).double().cumsum(0)
    title = title or task.name
    steps = range(0, len(states), every)

    def draw(ax: Axes, number: int) -> None:
        step = steps[number]
        plot_state(ax, states[step])
        ax.spines[:].set_visible(False)
        so_far = "" if returns is None else f", return {returns[step]:.0f}"
        ax.set_title(f"{title}: step {step}{so_far}", fontsize=10, fontweight="normal")

    shape = Figure().add_subplot()
    plot_state(shape, states[0])
    (left, right), (bottom, top) = shape.get_xlim(), shape.get_ylim()
    size = (4.0, 4.0 * min(1.5, max(0.3, (top - bottom) / (right - left))) + 0.3)
    return make_film(draw, len(steps), fps=fps, size=size, title=title, progress=progress)


def search_film(
    steps: Sequence[SearchStep],
    objective: Callable[[Tensor], Tensor] | None = None,
    *,
    low: float = -1.0,
    high: float = 1.0,
    title: str = "CEM",
    progress: bool = True,
) -> Film:
    """A film of a search in the plane: population, elites, and the Gaussian that closes in.

    Args:
        steps: one entry per iteration.
        objective: the function that is maximised, [M, 2] to [M], drawn as a landscape.
        low: lower end of both axes.
        high: upper end of both axes.
        title: stands above the picture.
        progress: show a progress bar.
    """

    def draw(ax: Axes, number: int) -> None:
        name = f"{title}: iteration {number + 1}"
        plot_search(*steps[number], objective=objective, low=low, high=high, title=name, ax=ax)

    return make_film(draw, len(steps), fps=1.5, size=(4.6, 4.8), title=title, progress=progress)


def mujoco_film(
    task: Task,
    actions: ArrayLike | Tensor,
    seed: int = 0,
    *,
    fps: float = 25,
    every: int = 2,
    title: str = "",
    progress: bool = True,
) -> Film | None:
    """A film of MuJoCo's own picture of an episode: plays recorded actions once more, and renders.

    Args:
        task: a MuJoCo task.
        actions: planned actions, [T, A].
        seed: of the environment, the same as in the recorded episode.
        fps: frames per second.
        every: render each so many steps.
        title: what the film shows; the task's name by default.
        progress: show a progress bar.

    Returns:
        The film; None, with a message, where the machine can't render (there is no OpenGL, say).
    """
    title = title or task.name
    images = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW warns about a missing screen before it fails
            env = task.make_env(render_mode="rgb_array")
            try:
                env.reset(seed=seed)
                for number, action in enumerate(
                    tqdm(torch.as_tensor(actions), desc=title, disable=not progress, leave=False)
                ):
                    _, _, terminated, truncated, _ = env.step(task.to_env_action(action))
                    if number % every == 0:
                        image: Any = env.render()
                        images.append(Image.fromarray(np.asarray(image)).resize((320, 320 * 3 // 4)))
                    if terminated or truncated:
                        break
            finally:
                env.close()
    except Exception as error:  # drivers fail in many ways, and a lesson goes on without this film
        print(f"No MuJoCo film of {title}: this machine can't render ({type(error).__name__}).")
        print("On Linux without a screen, try the environment variable MUJOCO_GL=egl or MUJOCO_GL=osmesa.")
        return None
    return film_of_images(images, fps=fps, title=title)


def show_film(film: Film | str | Path | None) -> Any:
    """Shows a film in a notebook: as the last line of a cell.

    Args:
        film: a film, or the path of a GIF; None, from `mujoco_film`, shows nothing.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if film is None or isinstance(film, Film):
        return film
    path = Path(film)
    if not path.is_file():
        raise FileNotFoundError(f"there is no film at {path}")
    with Image.open(path) as image:
        width = image.width
    return Film(path.read_bytes(), width, path.stem)


def _encode(frames: Sequence[Image.Image], duration: int) -> bytes:
    """A GIF in which all frames share the colours of a few of them, so that equal places stay equal."""
    width, height = frames[0].size
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, 4).round().astype(int))]
    strip = Image.new("RGB", (width, height * len(chosen)))
    for row, frame in enumerate(chosen):
        strip.paste(frame, (0, row * height))
    palette = strip.quantize(255)
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [duration] * (len(images) - 1) + [1000]
    stream = io.BytesIO()
    images[0].save(
        stream, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )
    return stream.getvalue()
