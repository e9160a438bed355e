"""Offscreen OpenGL renderer: on the GPU if there is one, otherwise on Mesa's llvmpipe, with the same code.

There is one context per process, created at first use. The same driver gives the same bits (llvmpipe of one Mesa
version); another driver rounds differently.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from ctypes import CDLL, CFUNCTYPE, addressof, c_int, c_void_p
from ctypes.util import find_library
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import moderngl
import numpy as np
from jaxtyping import Float, UInt8

from mvpose.errors import MvposeError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel
from mvpose.rendering import shaders
from mvpose.rendering.mesh import MeshPart, PosedPerson
from mvpose.rendering.surfaces import Surfaces, patterns

NEAR_FAR_M = (0.2, 60.0)
SHADOW_SIDE = 1024
TEXTURES_KEPT = 96
"""About a megabyte each."""
CLOTH_GLOSS = 0.02
_GLOSS = {"body": 0.08, "eyes": 0.5, "hair": 0.15, "shoes": 0.12, "teeth": 0.2}
_LENS_NUMBER = {LensModel.BROWN_CONRADY: 0, LensModel.KANNALA_BRANDT: 1, LensModel.HUMAN36M: 2}
_MISSING = (
    "OpenGL could not be started without a display ({}): install EGL and Mesa (Debian and Ubuntu: "
    "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri), or the driver of your GPU with its EGL library."
)


class RenderingError(MvposeError):
    """Images cannot be rendered on this machine."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Lights:
    """A key light with shadows, a fill light without, and ambient light. Colours are linear RGB."""

    key_direction: Float[np.ndarray, " 3"]
    """Unit vector towards the light."""
    key_colour: Float[np.ndarray, " 3"]
    fill_direction: Float[np.ndarray, " 3"]
    fill_colour: Float[np.ndarray, " 3"]
    sky_colour: Float[np.ndarray, " 3"]
    ground_colour: Float[np.ndarray, " 3"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Exposure:
    """Conversion of light to image values."""

    gain: Float[np.ndarray, " 3"]
    """Per channel: exposure times white balance."""
    contrast: float = 0.3
    """0 for none; 1 compresses dark and bright areas."""


def require_opengl() -> None:
    """Raise RenderingError, with installation advice, if OpenGL is unavailable without a display."""
    missing = [f"lib{library}" for library in ("EGL", "GL") if find_library(library) is None]
    if missing:
        raise RenderingError(_MISSING.format(f"{' and '.join(missing)} not found"))
    egl = CDLL(find_library("EGL"))
    # eglQueryDevicesEXT is an extension and must be looked up by name.
    egl.eglGetProcAddress.restype = c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    count = c_int(0)
    if not address or not CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(address)(0, None, addressof(count)) or not count:
        raise RenderingError(_MISSING.format("EGL has no device"))


@lru_cache(maxsize=1)
def renderer() -> Renderer:
    """The renderer of this process. RenderingError, with installation advice, if there is no OpenGL."""
    return Renderer()


class Renderer:
    """Holds the OpenGL context, the shaders, the recently used textures and the staged scene."""

    def __init__(self) -> None:
        # Workers are processes: llvmpipe's threads would compete with other workers'. Read at context creation.
        os.environ.setdefault("LP_NUM_THREADS", "0")
        require_opengl()
        start: Any = moderngl.create_context
        self._gl: moderngl.Context = start(standalone=True, backend="egl", require=330)
        self._gl.gc_mode = "auto"
        # Images are drawn with row 0 at the bottom, which mirrors every triangle.
        self._gl.front_face = "cw"
        program = self._gl.program
        self._person = program(vertex_shader=shaders.PERSON_VERTEX, fragment_shader=shaders.PERSON_FRAGMENT)
        self._surface = program(vertex_shader=shaders.SURFACE_VERTEX, fragment_shader=shaders.SURFACE_FRAGMENT)
        self._shadow = program(vertex_shader=shaders.SHADOW_VERTEX, fragment_shader=shaders.SHADOW_FRAGMENT)
        self._shadow_map = self._gl.depth_texture((SHADOW_SIDE, SHADOW_SIDE))
        self._shadow_map.compare_func = "<="
        self._shadow_target = self._gl.framebuffer(depth_attachment=self._shadow_map)
        self._patterns = self._pattern_array()
        self._white = self._gl.texture((1, 1), 4, b"\xff" * 4)
        self._textures: dict[str, moderngl.Texture] = {}
        self._targets: dict[tuple[int, int], moderngl.Framebuffer] = {}
        self._surfaces: moderngl.VertexArray | None = None
        self._people: list[list[_Drawn]] = []

    @property
    def device(self) -> str:
        """The device as named by OpenGL: "llvmpipe (LLVM 15.0.6, 256 bits)", or a GPU."""
        return str(self._gl.info["GL_RENDERER"])

    def stage(
        self,
        surfaces: Surfaces,
        people: Sequence[PosedPerson],
        lights: Lights,
        pixels_of: Callable[[str], UInt8[np.ndarray, "_ _ 4"]],
    ) -> None:
        """Stage a scene: geometry is uploaded and shadows are computed once for all views.

        `pixels_of(key)` returns the RGBA image of a `Part.texture`; it stays on the device under its key.
        """
        columns = (surfaces.vertices, surfaces.normals, surfaces.uv, surfaces.first, surfaces.second, surfaces.pattern)
        names = ("in_position", "in_normal", "in_uv", "in_first", "in_second", "in_pattern")
        buffer, index = self._uploaded(columns, surfaces.faces)
        self._surfaces = self._gl.vertex_array(self._surface, [(buffer, "3f 3f 2f 3f 3f 2f", *names)], index)
        self._people = [
            [self._part(*part, pixels_of) for part in zip(p.parts, p.vertices, p.normals, strict=True)] for p in people
        ]
        caster = self._gl.vertex_array(self._shadow, [(buffer, "3f 52x", "in_position")], index)
        shadow_from_world = _shadow_from_world(lights.key_direction, people)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        _set_uniforms(self._shadow, shadow_from_world=shadow_from_world.T)
        # Walls are visible only from inside: light enters through their backs.
        self._gl.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        caster.render()
        self._gl.enable_only(moderngl.DEPTH_TEST)
        for drawn in (d for person in self._people for d in person):
            drawn.shadow.render()
        self._shadow_map.use(1)
        self._patterns.use(2)
        for program in (self._person, self._surface):
            _set_uniforms(program, shadow_map=1, shadow_from_world=shadow_from_world.T)
            _set_uniforms(program, **vars(lights))
        _set_uniforms(self._person, image=0)
        _set_uniforms(self._surface, patterns=2)

    def image(
        self, rig: CameraRig, view: int, exposure: Exposure, people: Sequence[int], background: Float[np.ndarray, " 3"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        """Image of the staged scene by one camera of a rig: RGB, and depth in metres along its axis (inf for nothing).

        `people` are the indices of those to draw; the others are known to be outside the image. `background`
        is the background colour, 0 .. 1.
        """
        width, height = rig.size[view].tolist()
        target = self._target(width, height)
        target.use()
        red, green, blue = background.tolist()
        target.clear(red, green, blue, 1.0, depth=1.0)
        pose = rig.camera_from_world.matrix()[view].numpy()
        uniforms = {
            "camera_from_world": pose.T,
            "focal": rig.focal[view].numpy(),
            "centre": rig.centre[view].numpy(),
            "size": np.array([width, height]),
            "lens": rig.lens.coefficients[view].numpy(),
            "lens_limit": np.array(float(rig.lens.limit()[view])),
            "near_far": np.array(NEAR_FAR_M),
            "camera_world": -pose[:, :3].T @ pose[:, 3],
            "exposure": exposure.gain,
            "contrast": np.array(exposure.contrast),
        }
        for program in (self._person, self._surface):
            _set_uniforms(program, lens_model=_LENS_NUMBER[rig.lens.models[view]], **uniforms)
        for drawn in (d for i in people for d in self._people[i]):
            self._gl.enable_only(moderngl.DEPTH_TEST | (0 if drawn.part.two_sided else moderngl.CULL_FACE))
            drawn.texture.use(0)
            _set_uniforms(
                self._person, tint=np.array(drawn.part.colour), gloss=np.array(_GLOSS.get(drawn.part.name, CLOTH_GLOSS))
            )
            drawn.array.render()
        # Drawn last, so that pixels hidden by people are never shaded.
        self._gl.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        assert self._surfaces is not None
        self._surfaces.render()
        rgb = cv2.cvtColor(
            np.frombuffer(target.read(components=4), np.uint8).reshape(height, width, 4), cv2.COLOR_RGBA2RGB
        )
        depth = np.frombuffer(target.read(components=1, attachment=-1, dtype="f4"), np.float32).reshape(height, width)
        return rgb, _metres(depth)

    def _part(
        self,
        part: MeshPart,
        vertices: np.ndarray,
        normals: np.ndarray,
        pixels_of: Callable[[str], UInt8[np.ndarray, "_ _ 4"]],
    ) -> _Drawn:
        buffer, index = self._uploaded((vertices, normals, part.uv), part.faces)
        layout = (buffer, "3f 3f 2f", "in_position", "in_normal", "in_uv")
        return _Drawn(
            part,
            self._gl.vertex_array(self._person, [layout], index),
            self._gl.vertex_array(self._shadow, [(buffer, "3f 20x", "in_position")], index),
            self._texture(part.texture, pixels_of) if part.texture else self._white,
        )

    def _uploaded(self, columns: Sequence[np.ndarray], faces: np.ndarray) -> tuple[moderngl.Buffer, moderngl.Buffer]:
        rows = np.concatenate(columns, axis=1, dtype=np.float32)
        return self._gl.buffer(rows), self._gl.buffer(np.ascontiguousarray(faces, np.int32))

    def _texture(self, key: str, pixels_of: Callable[[str], UInt8[np.ndarray, "_ _ 4"]]) -> moderngl.Texture:
        texture = self._textures.pop(key, None)
        if texture is None:
            pixels = np.ascontiguousarray(pixels_of(key)[::-1])
            texture = self._gl.texture(pixels.shape[1::-1], 4, pixels)
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        # Reinserted at the end: the first of a dict is the least recently used.
        self._textures[key] = texture
        if len(self._textures) > TEXTURES_KEPT:
            del self._textures[next(iter(self._textures))]
        return texture

    def _pattern_array(self) -> moderngl.TextureArray:
        layers = patterns()
        array = self._gl.texture_array((*layers.shape[:0:-1], len(layers)), 1, np.ascontiguousarray(layers))
        array.build_mipmaps()
        # Without blending between mipmaps: it takes 2 of 14 ms per view.
        array.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        return array

    def _target(self, width: int, height: int) -> moderngl.Framebuffer:
        size = (width, height)
        if size not in self._targets:
            colour, depth = self._gl.renderbuffer(size, 4), self._gl.depth_renderbuffer(size)
            self._targets[size] = self._gl.framebuffer(colour, depth)
        return self._targets[size]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A part of a person on the device."""

    part: MeshPart
    array: moderngl.VertexArray
    shadow: moderngl.VertexArray
    texture: moderngl.Texture


def _set_uniforms(program: moderngl.Program, **uniforms: np.ndarray | int) -> None:
    """Set uniforms; those that a shader does not use are skipped."""
    for name, value in uniforms.items():
        if name in program:
            uniform = program[name]
            assert isinstance(uniform, moderngl.Uniform)
            if isinstance(value, int):
                uniform.value = value
            else:
                uniform.write(np.ascontiguousarray(value, np.float32))


def _shadow_from_world(towards_light: np.ndarray, people: Sequence[PosedPerson]) -> Float[np.ndarray, "4 4"]:
    """Orthographic view from the light of all people and 1.5 m about them."""
    points = np.concatenate([np.zeros((0, 3)), *(vertices for p in people for vertices in p.vertices)])
    low, high = points.min(axis=0), points.max(axis=0)
    centre, radius = (low + high) / 2, np.linalg.norm(high - low) / 2 + 1.5
    side = np.cross(towards_light, [0.0, 0.123, 0.992])
    side /= np.linalg.norm(side)
    # Depth increases away from the light.
    axes = np.stack([side, np.cross(side, towards_light), -towards_light])
    out = np.eye(4)
    # Objects between light and people are included beyond the visible range of the light.
    out[:3, :3] = axes / np.array([radius, radius, 2.0 * radius])[:, None]
    out[:3, 3] = -out[:3, :3] @ centre
    return out


def _metres(depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    near, far = NEAR_FAR_M
    # In place: a quarter of a million numbers per view take 3 ms with temporaries and 0.4 without.
    out = np.multiply(depth, np.float32(-2 * (far - near)))
    out += np.float32(2 * far)
    np.divide(np.float32(2 * far * near), out, out=out)
    out[depth >= 1.0] = np.inf
    return out
