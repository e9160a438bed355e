"""A person of balls and sticks whose joints are known, so that the renderer is tested without assets."""

import numpy as np

from mvpose import scenes
from mvpose.rendering.mesh import MeshPart, PosedPerson
from mvpose.skeleton import HALPE26, Skeleton


def ball(centre, radius: float, rings: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, normals and outward faces of a sphere."""
    v, u = (g.ravel() for g in np.mgrid[0 : rings + 1, 0 : 2 * rings + 1] * np.pi / rings)
    normals = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], axis=-1)
    index = np.arange(len(u)).reshape(rings + 1, -1)
    a, b, c, d = (i.ravel() for i in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = np.concatenate([np.stack([a, c, b], axis=-1), np.stack([a, d, c], axis=-1)])
    return np.asarray(centre) + radius * normals, normals, faces.astype(np.int32)


def person_of(balls: list[tuple[np.ndarray, np.ndarray, np.ndarray]], joints, colour=(0.8, 0.5, 0.4)) -> PosedPerson:
    """All balls as one part."""
    starts = np.cumsum([0, *(len(v) for v, _, _ in balls)])[:-1]
    vertices, normals = (np.concatenate([b[i] for b in balls]).astype(np.float32) for i in (0, 1))
    faces = np.concatenate([f + start for (_, _, f), start in zip(balls, starts, strict=True)]).astype(np.int32)
    part = MeshPart("body", faces, np.zeros((len(vertices), 2), np.float32), "", colour, False)
    return PosedPerson((part,), (vertices,), (normals,), np.asarray(joints, np.float32))


def mannequin(skeleton: Skeleton = HALPE26, frame: int = 0, radius: float = 0.05) -> PosedPerson:
    """Balls along the bones of a walker near the middle of the floor."""
    joints = scenes.ring4(num_frames=frame + 1, skeleton=skeleton).joints[frame, 0]
    joints = joints - [*joints.mean(axis=0)[:2], joints[:, 2].min() - 0.05]
    centres = [
        joints[a] + t * (joints[b] - joints[a]) for a, b in skeleton.bone_indices for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    return person_of([ball(c, radius, 8) for c in centres], joints)


def markers(person: PosedPerson, radius: float = 0.012) -> list[PosedPerson]:
    """Each joint as a small ball of its own."""
    return [person_of([ball(j, radius)], person.joints) for j in person.joints.astype(np.float64)]
