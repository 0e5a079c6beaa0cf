"""A subject is what a command line would train."""

import pytest

from zoo.check import Subject


def test_options_are_read_as_on_the_command_line():
    options = [
        "--model.lr_d=5e-4",
        "--model.loop.r1=1e1",
        "--model.prior=sphere",
        "--data.kind=grid",
    ]
    subject = Subject.of("gan", *options)
    assert subject.model_params["lr_d"] == 5e-4 and subject.model_params["loop"] == {"r1": 10.0}
    model = subject.model()
    assert model.loop.r1 == 10 and subject.data().spec.name.startswith("toy2d grid")
    free = Subject.of("infogan", "--data=toy2d", "--model.arch=small", "--model.width=null")
    assert free.model_params["width"] is None and free.model().spec.shape == (2,)


@pytest.mark.parametrize(("small", "data"), [(True, "digits 8x8"), (False, "heads 32x32")])
def test_a_model_of_larger_data_is_taken_on_digits_unless_its_default_is_asked_for(small, data):
    assert Subject.of("began", small=small).data().spec.name.startswith(data)
    assert Subject.of("gan", small=small).data().spec.name.startswith("toy2d ring")
