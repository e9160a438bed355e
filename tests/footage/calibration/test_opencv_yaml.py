import pytest

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import load_calibration, read_calibration
from tests.footage.calibration.rig_files import easymocap_texts, ring
from tests.footage.calibration.test_formats import worst_pixel, written


@pytest.mark.parametrize("named", ["intri.yml", "extri.yml"])
def test_either_file_of_easymocap_s_pair_brings_the_other(named, tmp_path):
    cameras = ring(["02", "01"])
    for name, text in zip(("intri.yml", "extri.yml"), easymocap_texts(cameras), strict=True):
        uri = written(tmp_path, name, text)
    rig = read_calibration(uri.replace("extri.yml", named))
    assert rig.names == ("02", "01") and worst_pixel(rig, cameras) < 1e-6


def test_half_of_a_pair_says_where_the_other_half_should_be(tmp_path):
    with pytest.raises(CalibrationError, match=r"extri\.yml"):
        read_calibration(written(tmp_path, "intri.yml", easymocap_texts(ring(["01", "02"]))[0]))


def test_a_size_that_is_not_stated_is_never_guessed(tmp_path):
    intri, extri = easymocap_texts(ring(["01", "02"]), sized=False)
    uri = written(tmp_path, "intri.yml", intri)
    written(tmp_path, "extri.yml", extri)
    assert load_calibration(uri).rig.size.tolist() == [[0, 0], [0, 0]]
    with pytest.raises(CalibrationError, match="image size of 01, 02"):
        read_calibration(uri)


def test_the_older_layouts_of_the_same_content_are_read(tmp_path):
    cameras = ring(["01", "02"])
    intri, extri = easymocap_texts(cameras)
    text = intri.replace("%YAML 1.2", "%YAML:1.0") + "# a remark\n\n" + extri[extri.index("R_") :]
    text = text.replace("   - 01\n   - 02", '  - "01"\n  - "02"').replace('   - "01"', '   - "01"')
    assert worst_pixel(read_calibration(written(tmp_path, "c.yml", text)), cameras) < 1e-6
    inline = text[: text.index("names:")] + 'names: [ "01", "02" ]\n' + text[text.index("K_") :]
    assert worst_pixel(read_calibration(written(tmp_path, "c.yml", inline)), cameras) < 1e-6
    unnamed = text[: text.index("names:")] + text[text.index("K_") :]
    assert read_calibration(written(tmp_path, "c.yml", unnamed)).names == ("01", "02")


def test_matrices_of_no_interest_may_be_of_any_type(tmp_path):
    intri, extri = easymocap_texts(ring(["01", "02"]))
    extra = 'image: !!opencv-matrix\n   rows: 1\n   cols: 1\n   dt: "3u"\n   data: [ 1, 2, 3 ]\n'
    assert len(read_calibration(written(tmp_path, "c.yml", intri + extri[extri.index("R_") :] + extra))) == 2


def test_a_bracket_lost_in_a_matrix_is_an_error_and_not_an_endless_loop(tmp_path):
    intri, extri = easymocap_texts(ring(["01", "02"]))
    with pytest.raises(CalibrationError, match="Rot_01"):
        read_calibration(written(tmp_path, "c.yml", intri + extri[extri.index("R_") :].replace("data: [", "data: ", 2)))
