from mvpose.training.tuning_trial import Trial, ended_trials, write_record


def test_a_record_names_no_place_outside_its_own_trial(tmp_path):
    """`mvpose tune --register` takes the network from there."""
    write_record(str(tmp_path), Trial(id="t1", settings={}, output="/somebody/else/run-1", status="finished"))
    (found,) = ended_trials(str(tmp_path))
    assert (found.id, found.output) == ("t1", f"{tmp_path}/trials/t1/run-1")
