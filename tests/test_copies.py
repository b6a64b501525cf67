"""Copies: the hash against its definition computed otherwise, pairs against brute force, and real data."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinamask.dataset import copies
from retinamask.dataset.images import read_image
from retinamask.dataset.sample import draw_sample

modest = settings(deadline=None, derandomize=True, max_examples=60)


def upright_hash(image: np.ndarray) -> np.ndarray:
    return np.unpackbits(copies.packed_hashes(image)[0]).astype(bool)


def photo(seed: int, width: int = 120, height: int = 90) -> np.ndarray:
    """Smooth random colours, as photographs have them: sixteen by twelve random points, enlarged."""
    points = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(points).resize((width, height), Image.Resampling.BICUBIC))


def by_definition(image_rgb: np.ndarray) -> np.ndarray:
    """The hash with the sums of the discrete cosine transform written out: no library's transform."""
    grey = np.asarray(Image.fromarray(image_rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
    found = []
    for v in range(9):
        for u in range(9):
            waves = np.outer(
                [np.cos(np.pi * v * (2 * y + 1) / 64) for y in range(32)],
                [np.cos(np.pi * u * (2 * x + 1) / 64) for x in range(32)],
            )
            scale = (1 if v else 2**-0.5) * (1 if u else 2**-0.5) / 16  # orthonormal, 2 / 32
            found.append(scale * (grey * waves).sum())
    lowest = np.array(found[1:])
    return lowest > np.median(lowest)


def hashes_of(upright: np.ndarray, mirrored: np.ndarray) -> copies.Hashes:
    names = [f"{i}.jpg" for i in range(len(upright))]
    packed = (np.packbits(bits, axis=1).reshape(-1, 10) for bits in (upright, mirrored))
    return copies.Hashes(names, *packed, names, [])


def brute_force(upright: np.ndarray, mirrored: np.ndarray, most_bits: int) -> list[list[int]]:
    """Pairs by comparing each with each, bit by bit."""

    def near(one, other):
        return sum(bool(a) != bool(b) for a, b in zip(one, other, strict=True)) <= most_bits

    return [
        [i, j]
        for i in range(len(upright))
        for j in range(i + 1, len(upright))
        if near(upright[i], upright[j]) or near(upright[i], mirrored[j]) or near(mirrored[i], upright[j])
    ]


# --- The hash ---


@pytest.mark.parametrize("seed", range(8))
def test_the_hash_is_its_definition(seed):
    image = photo(seed)
    assert (upright_hash(image) == by_definition(image)).all()
    assert upright_hash(image).shape == (copies.HASH_BITS,)


def test_the_packed_hashes_are_those_of_the_image_and_of_its_mirror_image():
    for seed in range(8):
        upright, mirrored = np.unpackbits(copies.packed_hashes(photo(seed)), axis=1).astype(bool)
        assert (upright == by_definition(photo(seed))).all()
        flipped = np.ascontiguousarray(photo(seed)[:, ::-1])
        assert (mirrored != by_definition(flipped)).sum() <= 2  # resizing rounds a flipped image otherwise


def test_what_copies_go_through_moves_few_bits_and_other_pictures_many(tmp_path):
    image = photo(1, 400, 300)
    Image.fromarray(image).resize((160, 120)).save(tmp_path / "small.jpg", quality=40)
    paler = (image * 0.7 + 70).astype(np.uint8)
    plain = upright_hash(image)
    for copy in (read_image(tmp_path / "small.jpg"), paler):
        assert (plain != upright_hash(copy)).sum() <= 6
    others = [(plain != upright_hash(photo(seed))).sum() for seed in range(2, 22)]
    assert min(others) > copies.NEAR_BITS and 30 < np.mean(others) < 50  # half of 80 by chance


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_blank_image_is_all_false(value):
    assert not copies.packed_hashes(np.full((50, 40, 3), value, dtype=np.uint8)).any()


def test_a_drawing_equal_to_its_mirror_image_has_one_hash():
    half = photo(3, 60, 80)
    upright, mirrored = copies.packed_hashes(np.concatenate([half, half[:, ::-1]], axis=1))
    assert (upright == mirrored).all()


# --- Files ---


def test_files_are_hashed_upright_and_bad_ones_reported(tmp_path):
    large = photo(5, 2400, 1800)
    exif = Image.Exif()
    exif[0x0112] = 6  # the file's pixels lie on their side
    Image.fromarray(large).rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(large).save(tmp_path / "plain.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "plain.png").read_bytes())
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:20_000])
    (tmp_path / "folder.jpg").mkdir()
    paths = ["turned.jpg", "text.jpg", "plain.png", "gone.jpg", "cut.jpg", "folder.jpg", "copy.png"]
    hashes = copies.hash_images(paths, tmp_path)
    assert hashes.paths == ["turned.jpg", "plain.png", "copy.png"]
    assert hashes.upright.shape == hashes.mirrored.shape == (3, 10) and hashes.upright.dtype == np.uint8
    upright = np.unpackbits(hashes.upright, axis=1).astype(bool)
    assert (upright[1] == by_definition(large)).all() and (upright[0] != upright[1]).sum() <= 2
    assert hashes.sha256[1] == hashes.sha256[2] == hashlib.sha256((tmp_path / "plain.png").read_bytes()).hexdigest()
    for name, message in zip(("text.jpg", "gone.jpg", "cut.jpg", "folder.jpg"), hashes.unreadable, strict=True):
        assert str(tmp_path / name) in message


def test_copies_are_remarked_upon_in_one_line(tmp_path):
    names = ["a.png", "b.png", "c.png", "d.jpg", "e.jpg"]
    for name, seed in zip(names, (1, 2, 3, 1, 2), strict=True):
        Image.fromarray(photo(seed, 300, 200)).save(tmp_path / name)
    assert copies.copies_remark(names[:3], tmp_path) == []
    assert copies.copies_remark(names, tmp_path) == [
        "4 of 5 images are copies of each other, in 2 groups, such as a.png and d.jpg: each counts"
    ]
    (remark,) = copies.copies_remark([*names, "gone.png"], tmp_path)
    assert remark.endswith("each counts; 1 cannot be read and were not compared")
    (remark,) = copies.copies_remark(["a.png", "gone.png"], tmp_path)
    assert remark == "copies among the images: none found; 1 cannot be read and were not compared"


def test_no_image_at_all(tmp_path):
    assert copies.copies_remark([], tmp_path) == []
    hashes = copies.hash_images([], tmp_path)
    assert hashes.upright.shape == (0, 10) and copies.near_pairs(hashes).shape == (0, 2)
    assert copies.groups(0, copies.near_pairs(hashes)).tolist() == []


# --- Pairs and groups ---


@modest
@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.integers(0, 40))
def test_pairs_are_those_of_brute_force(seed, count, most_bits):
    random = np.random.default_rng(seed)
    centres = random.random((3, 80)) < 0.5  # so that some are near each other
    upright, mirrored = (
        centres[random.integers(0, 3, count)] ^ (random.random((count, 80)) < random.choice([0.05, 0.2]))
        for _ in range(2)
    )
    hashes = hashes_of(upright, mirrored)
    assert copies.near_pairs(hashes, most_bits).tolist() == brute_force(upright, mirrored, most_bits)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("bits", "pairs"), [(12, [[0, 1]]), (13, [])])
def test_twelve_bits_are_near_and_thirteen_are_not(bits, pairs, mirror):
    first, far, further = (np.arange(80) % (2 * width) < width for width in (1, 2, 4))  # 40 bits from each other
    second = first ^ (np.arange(80) < bits)
    upright = np.array([first, far if mirror else second])
    mirrored = np.array([further, second if mirror else far])
    assert copies.near_pairs(hashes_of(upright, mirrored)).tolist() == pairs


def test_pairs_across_the_chunks(monkeypatch):
    random = np.random.default_rng(0)
    upright, mirrored = random.random((2, 50, 80)) < 0.5
    upright[41], mirrored[30] = upright[3], upright[17]
    monkeypatch.setattr(copies, "_CHUNK", 7)
    assert copies.near_pairs(hashes_of(upright, mirrored)).tolist() == [[3, 41], [17, 30]]


@modest
@given(st.data(), st.integers(1, 30))
def test_groups_are_what_hangs_together(data, count):
    member = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(member, member), max_size=30))
    reachable = np.eye(count, dtype=bool)
    for i, j in pairs:
        reachable[i, j] = reachable[j, i] = True
    for middle in range(count):  # Warshall's closure
        reachable |= reachable[:, [middle]] & reachable[[middle]]
    found = copies.groups(count, pairs)
    assert ((found[:, None] == found[None, :]) == reachable).all()
    assert list(dict.fromkeys(found.tolist())) == list(range(found.max() + 1))


# --- Real data ---


def test_drawn_scenes_are_not_taken_for_copies(tmp_path):
    paths = draw_sample(tmp_path, images=60, size=128, seed=4)
    hashes = copies.hash_images([str(path) for path in paths], tmp_path)
    found = copies.groups(len(paths), copies.near_pairs(hashes))
    assert hashes.unreadable == [] and np.bincount(found).max() <= 3


@pytest.mark.parametrize(
    "name", ["praveen", *(pytest.param(name, marks=pytest.mark.slow) for name in ("prajnasb", "andrewmvd"))]
)
def test_public_data(shared_data, name):
    """Every exact file copy is found, and decoding JPEGs at a reduced size costs two bits at the most."""
    folder = shared_data / name
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    hashes = copies.hash_images(paths, folder)
    assert hashes.paths == paths
    upright = np.unpackbits(hashes.upright, axis=1).astype(bool)
    step = max(1, len(paths) // 40)
    for i in range(0, len(paths), step):
        assert (upright[i] != by_definition(read_image(folder / paths[i]))).sum() <= 2, paths[i]
    found = copies.groups(len(paths), copies.near_pairs(hashes))
    group_of = {}
    for path, group in zip(paths, found, strict=True):
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert group_of.setdefault(content, group) == group
    sizes = np.bincount(found)
    print(
        f"{name}: {len(paths)} files, {len(group_of)} different files, {len(sizes)} pictures; "
        f"{(sizes > 1).sum()} groups of copies hold {sizes[sizes > 1].sum()} files"
    )
    assert len(sizes) < len(group_of) < len(paths)


def test_few_pairs_an_image_make_the_same_groups():
    """Frames of still cameras: within a scene every two are a pair."""
    generator = np.random.default_rng(4)
    scenes = generator.integers(0, 2, (6, 80), dtype=np.uint8)
    frames = np.repeat(scenes, 250, axis=0)
    flips = generator.integers(0, 80, (len(frames), 3))
    frames[np.arange(len(frames))[:, None], flips] ^= 1
    frames = frames[generator.permutation(len(frames))]
    hashes = hashes_of(frames.astype(bool), generator.integers(0, 2, frames.shape).astype(bool))
    every, few = copies.near_pairs(hashes), copies.near_pairs(hashes, most_per_image=3)
    assert len(every) > 150_000 and len(few) < 4 * len(frames)
    assert {tuple(pair) for pair in few.tolist()} <= {tuple(pair) for pair in every.tolist()}
    assert copies.groups(len(frames), few).tolist() == copies.groups(len(frames), every).tolist()


def test_a_file_is_hashed_once_until_another_has_its_path(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(copies, "read_image", lambda path, side: read.append(path) or read_image(path, side))
    for seed in range(2):
        Image.fromarray(photo(seed)).save(tmp_path / "a.png")
        for _ in range(2):
            (found,) = copies.hash_images(["a.png"], tmp_path).upright
            assert (found == copies.packed_hashes(photo(seed))[0]).all()
    assert len(read) == 2
