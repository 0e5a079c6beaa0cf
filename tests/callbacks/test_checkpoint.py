"""``last`` and ``best`` are what their names say, on the generator's clock, and no trouble of the
disk, of a number or of a signal costs them.
"""

import os
import resource
import signal
import tempfile
import warnings

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import Checkpoints
from callbacks.best import Best
from tests.support import Given, fit, in_a_process
from zoo.core import DataSpec
from zoo.core.module import NonFiniteLoss
from zoo.gan.began import BEGAN

SPEC = DataSpec((1, 8, 8), 17)


class Score(Callback):
    """Logs a scripted metric at each validation."""

    def __init__(self, name, values):
        self.name, self.values = name, iter(values)

    def on_validation_epoch_end(self, trainer, module):
        module.log(self.name, next(self.values))


class Do(Callback):
    """Calls a function after a step, with trainer and module, before anything is saved."""

    def __init__(self, **at):
        self.at = {int(name[3:]): function for name, function in at.items()}

    def on_train_batch_end(self, trainer, module, *_):
        if function := self.at.get(trainer.global_step):
            function(trainer, module)


def train(folder, callbacks, steps=6, **options):
    torch.manual_seed(0)
    data = Given(SPEC, torch.randint(0, 17, (40, 1, 8, 8)).float())
    return fit(
        BEGAN(SPEC, latent=4, code=4, width=8),
        data,
        steps,
        callbacks=callbacks,
        default_root_dir=str(folder),
        enable_checkpointing=True,
        **options,
    )


def run(folder, name, values, steps=6, **options):
    keeper = Checkpoints(**{"every_n_steps": 4, **options})
    train(folder, [Score(name, values), keeper], steps, limit_val_batches=1, val_check_interval=2)
    return saved(folder)


def saved(folder):
    """The steps of the checkpoints, by name."""
    return {
        p.stem: torch.load(p, weights_only=True)["global_step"]
        for p in (folder / "checkpoints").iterdir()
    }


def test_last_is_the_end_and_best_the_lowest_distance(tmp_path):
    assert run(tmp_path, "val/fid_pixels", [3.0, 1.0, 2.0]) == {"last": 6, "best": 4}


def test_a_likelihood_is_better_when_higher_and_a_nan_is_never_best(tmp_path):
    assert run(tmp_path, "val/elbo", [-30.0, float("nan"), -20.0]) == {"last": 6, "best": 6}
    assert run(tmp_path / "b", "val/elbo", [-20.0, float("nan"), -30.0]) == {"last": 6, "best": 2}


def test_last_knows_the_best_score_of_its_own_step(tmp_path):
    run(tmp_path, "val/fid_pixels", [3.0, 2.0, 1.0], every_n_steps=2)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [v for k, v in content["callbacks"].items() if k.startswith("Checkpoints")]
    assert state["best_score"] == 1.0
    assert state["best_metric"] == "val/fid_pixels"


def test_an_explicit_monitor_wins(tmp_path):
    assert run(tmp_path, "val/other", [1.0, 5.0, 2.0], monitor="val/other", mode="max")["best"] == 4


def test_without_a_metric_there_is_only_last(tmp_path):
    assert run(tmp_path, "val/unheard_of", [1.0, 1.0, 1.0]) == {"last": 6}


def test_the_best_score_survives_a_checkpoint():
    keeper, again = Checkpoints(), Checkpoints()
    keeper.best.score, keeper.best.metric = 1.5, "val/fid_pixels"
    again.load_state_dict(keeper.state_dict())
    assert again.best.found({"val/fid_pixels": 2.0, "val/nll_nats": 1.0}) == "val/fid_pixels"
    assert again.best.score == 1.5
    assert not again.best.beaten({"val/fid_pixels": 2.0})
    assert again.best.beaten({"val/fid_pixels": 1.0})


@pytest.mark.parametrize(
    "bad", [{"every_n_steps": 0}, {"mode": "lowest"}, {"mode": "max"}, {"mode": "min"}]
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=rf"checkpoints(: |\.){next(iter(bad))}"):
        Checkpoints(**bad)


# -- what is best ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "better"),
    [
        *((name, "min") for name in ("nll_nats", "bits_per_dim", "fid", "fid_digitsnet", "kid")),
        *((name, "min") for name in ("kid_pixels", "am_digitsnet", "loss")),
        *((name, "max") for name in ("elbo", "parzen_nats", "modes", "hq", "hq_strict", "is")),
        *((name, "max") for name in ("is_pixels", "precision_pixels", "recall")),
        *((name, "max") for name in ("coverage_x", "cond_acc_digitsnet", "classes_pixels")),
    ],
)
def test_a_monitored_metric_has_its_own_direction(metric, better):
    metric = f"val/{metric}"
    best = Best(metric)
    for value, wins in ((2.0, True), (1.0, better == "min"), (3.0, better == "max")):
        assert best.beaten({metric: value}) == wins


def test_a_metric_whose_best_is_a_number_is_best_when_it_is_nearest_to_it():
    best = Best("val/density_x")  # 1 for samples like the data
    found = [best.beaten({"val/density_x": v}) for v in (3.0, 0.5, 1.5, 1.2, 0.9, 2.0)]
    assert found == [True, True, False, True, True, False] and best.score == 0.9


def test_an_explicit_elbo_is_best_when_it_is_highest(tmp_path):
    values = [-30.0, -10.0, -20.0]
    assert run(tmp_path, "val/elbo", values, monitor="val/elbo")["best"] == 4
    # The other way is there for whoever says so.
    options = {"monitor": "val/elbo", "mode": "min"}
    assert run(tmp_path / "b", "val/elbo", values, **options)["best"] == 2


def test_a_metric_without_a_known_direction_asks_for_one():
    with pytest.raises(ValueError, match=r"val/kl .*--checkpoints.mode=min"):
        Checkpoints(monitor="val/kl")
    assert Checkpoints(monitor="val/kl", mode="min").best.beaten({"val/kl": 1.0})


def test_a_mistyped_metric_is_said_at_each_validation_with_the_nearest_names(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        steps = run(tmp_path, "val/fid_pixels", [3.0, 1.0, 2.0], monitor="val/fid_pixel")
    assert steps == {"last": 6}
    lines = [str(w.message) for w in said if "checkpoints.monitor" in str(w.message)]
    assert len(lines) == 3
    assert lines[0].startswith("checkpoints.monitor=val/fid_pixel is not among")
    assert lines[0].endswith("it logged val/fid_pixels")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("val/fid_digitnet", "val/fid_digitsnet, val/fid_pixels"),
        ("fid", "val/fid_digitsnet, val/fid_pixels"),
        ("val/elbow", "val/elbo"),
        ("val/xyz", "val/elbo, val/fid_digitsnet, val/fid_pixels"),
    ],
)
def test_the_nearest_names_are_told(wrong, near):
    logged = dict.fromkeys(["train/loss", "val/fid_pixels", "val/fid_digitsnet", "val/elbo"], 1.0)
    assert Best(wrong, "min").missing(logged).endswith(f"; it logged {near}")
    assert Best("val/elbo").missing(logged) == Best().missing(logged) == ""


# -- the disk --------------------------------------------------------------------------------------
def full_disk(*_):
    """From now on no file of this process grows beyond 4 kB: writes stop half way."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def room(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def small_disk():
    yield
    room()


def test_a_full_disk_during_the_run_costs_nothing(tmp_path, small_disk):
    there = []

    def look(trainer, module):
        there.append((saved(tmp_path), os.listdir(tmp_path / "checkpoints")))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(
            tmp_path,
            [Do(at_2=full_disk, at_5=look, at_6=room), Checkpoints(every_n_steps=1)],
        )
    assert there == [({"last": 1}, ["last.ckpt"])]
    assert saved(tmp_path) == {"last": 6}
    lines = [str(w.message) for w in said if "cannot be saved" in str(w.message)]
    assert len(lines) == 1
    assert lines[0].startswith(f"step 2 cannot be saved to {tmp_path}/checkpoints/last.ckpt")
    assert "File too large" in lines[0]


def test_a_full_disk_at_the_end_is_an_error_that_says_what_there_is(tmp_path, small_disk):
    with pytest.raises(OSError, match=r"step 6, could not be saved: .*/last\.ckpt.*go on from"):
        train(tmp_path, [Do(at_3=full_disk), Checkpoints(every_n_steps=2)])
    room()
    assert saved(tmp_path) == {"last": 2}
    assert os.listdir(tmp_path / "checkpoints") == ["last.ckpt"]


def test_a_best_that_could_not_be_saved_is_not_the_one_to_beat(tmp_path, small_disk):
    class Full(Callback):
        def on_validation_start(self, trainer, module):
            full_disk() if trainer.global_step == 4 else room()

    keeper = Checkpoints(every_n_steps=100)
    watch = [Full(), Score("val/fid", [3.0, 1.0, 2.0]), keeper]
    train(tmp_path, watch, limit_val_batches=1, val_check_interval=2)
    assert keeper.best.score == 2.0
    assert saved(tmp_path) == {"last": 6, "best": 6}


def test_a_vanished_folder_is_made_again(tmp_path):
    import shutil

    gone = Do(at_3=lambda *_: shutil.rmtree(tmp_path / "checkpoints"))
    train(tmp_path, [gone, Checkpoints(every_n_steps=2)])
    assert saved(tmp_path) == {"last": 6}


def test_a_kill_in_a_save_leaves_the_former_one_where_tmpdir_is_elsewhere(tmp_path, monkeypatch):
    elsewhere = "/dev/shm"
    if not os.path.isdir(elsewhere) or os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is one file system only")
    monkeypatch.setenv("TMPDIR", elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", None)

    def killed():
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        def arm(*_):
            os.fsync = os.sendfile = die  # where a file is written, and where it is copied

        train(tmp_path, [Do(at_3=arm), Checkpoints(every_n_steps=2)])
        return 0

    assert in_a_process(killed) == -signal.SIGKILL
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    left = set(os.listdir(tmp_path / "checkpoints")) - {"last.ckpt"}
    assert len(left) == 1  # what was being written
    train(tmp_path, [Checkpoints()], ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert os.listdir(tmp_path / "checkpoints") == ["last.ckpt"]


# -- numbers ---------------------------------------------------------------------------------------
def spoil(trainer, module):
    """A weight that the losses looked at do not show."""
    next(module.parameters()).data.view(-1)[0] = float("nan")


@pytest.mark.parametrize("every", [1, 3, 100])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, every):
    first = next(iter(dict(BEGAN(SPEC, latent=4, code=4, width=8).named_parameters())))
    with pytest.raises(NonFiniteLoss, match=rf"step 6: {first} is not finite"):
        train(tmp_path, [Do(at_6=spoil), Checkpoints(every_n_steps=every)])
    there = saved(tmp_path) if (tmp_path / "checkpoints").is_dir() else {}
    assert there == {1: {"last": 5}, 3: {"last": 3}, 100: {}}[every]


def test_best_is_not_replaced_either(tmp_path):
    class Late(Callback):
        def on_validation_epoch_end(self, trainer, module):
            if trainer.global_step == 4:
                spoil(trainer, module)

    watch = [Late(), Score("val/fid", [2.0, 1.0]), Checkpoints(every_n_steps=2)]
    with pytest.raises(NonFiniteLoss, match="step 4"):
        train(tmp_path, watch, limit_val_batches=1, val_check_interval=2)
    assert saved(tmp_path) == {"last": 4, "best": 2}
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = dict(BEGAN(SPEC, latent=4, code=4, width=8).named_parameters())
    assert all(state[name].isfinite().all() for name in names)


def test_a_mask_of_minus_infinities_is_no_fault(tmp_path):
    model = BEGAN(SPEC, latent=4, code=4, width=8)
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    data = Given(SPEC, torch.randint(0, 17, (40, 1, 8, 8)).float())
    fit(
        model,
        data,
        2,
        callbacks=[Checkpoints()],
        default_root_dir=str(tmp_path),
        enable_checkpointing=True,
    )
    assert saved(tmp_path) == {"last": 2}


# -- signals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_step_at_hand_and_tells_its_number(tmp_path, sent, caplog):
    former = signal.signal(sent, signal.SIG_DFL)  # it may be ignored where the tests run
    stop = Do(at_3=lambda *_: os.kill(os.getpid(), sent))
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as ended:
        train(tmp_path, [stop, Checkpoints()])
    assert ended.value.code == 128 + sent
    assert saved(tmp_path) == {"last": 3}
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert f"{sent.name} at step 3: saved {path}" in caplog.text
    assert f"--ckpt_path={path}" in caplog.text
    signal.signal(sent, former)


def test_an_ignored_signal_stays_ignored(tmp_path):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        train(tmp_path, [Do(at_3=lambda *_: os.kill(os.getpid(), signal.SIGHUP)), Checkpoints()])
    finally:
        signal.signal(signal.SIGHUP, former)
    assert saved(tmp_path) == {"last": 6}


def test_the_second_signal_ends_it_on_the_spot(tmp_path):
    def twice(*_):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    def run():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the command does
        train(tmp_path, [Do(at_3=twice), Checkpoints(every_n_steps=2)])
        return 0

    assert in_a_process(run) == -signal.SIGINT
    assert saved(tmp_path) == {"last": 2}


def test_a_signal_in_the_middle_of_a_validation_lets_it_finish(tmp_path):
    class Interrupt(Callback):
        def on_validation_batch_end(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(
            tmp_path,
            [Interrupt(), Score("val/fid", [1.0, 2.0]), Checkpoints()],
            steps=20,
            limit_val_batches=1,
            val_check_interval=2,
        )
    assert saved(tmp_path) == {"last": 3, "best": 2}  # it stops after the step that follows


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost():
    keeper = Checkpoints()

    class Strategy:
        root_device = torch.device("cpu")

        def reduce(self, word, reduce_op):
            agreed = word.clone()
            keeper._stop.noted = signal.SIGINT  # it has been read already
            return agreed

    class Trainer:
        world_size, strategy = 2, Strategy()
        _signal_connector = type("Connector", (), {"received_sigterm": False})()

    trainer = Trainer()
    keeper._listen(trainer, 1)
    assert not trainer._signal_connector.received_sigterm
    keeper._listen(trainer, 2)
    assert trainer._signal_connector.received_sigterm


# -- epochs ----------------------------------------------------------------------------------------
def test_a_run_of_epochs_ends_with_a_validation_too(tmp_path):
    options = {"max_epochs": 2, "limit_val_batches": 1}
    train(tmp_path, [Score("val/fid", [1.0]), Checkpoints()], -1, **options)
    assert saved(tmp_path) == {"last": 20, "best": 20}  # 40 rows, four a step


@pytest.mark.parametrize("limit", [{"steps": 20}, {"steps": -1, "max_epochs": 2}])
def test_the_last_validation_is_made_up_for(tmp_path, limit):
    class Broken(Callback):
        def on_validation_start(self, trainer, module):
            raise RuntimeError("killed")

    options = {"limit_val_batches": 1, **limit}
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path, [Broken(), Checkpoints()], **options)
    assert saved(tmp_path) == {"last": 20}
    last = tmp_path / "checkpoints" / "last.ckpt"
    # Once made up for, it is not done again.
    for values in ([1.0], []):
        train(tmp_path, [Score("val/fid", values), Checkpoints()], ckpt_path=last, **options)
        assert saved(tmp_path) == {"last": 20, "best": 20}


@pytest.mark.parametrize("every", [4, 10])  # within the second epoch; at the end of the first
def test_a_run_of_epochs_resumes_bit_for_bit(tmp_path, every):
    def crash(*_):
        raise RuntimeError("killed")

    options = {"max_epochs": 3, "limit_val_batches": 1}
    scores = [Score("val/fid", [1.0]), Checkpoints(every_n_steps=every)]
    straight = train(tmp_path / "a", scores, -1, **options).lightning_module.state_dict()
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "b", [Do(at_13=crash), Checkpoints(every_n_steps=every)], -1, **options)
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    assert saved(tmp_path / "b") == {"last": 13 // every * every}
    scores = [Score("val/fid", [1.0]), Checkpoints(every_n_steps=every)]
    resumed = train(tmp_path / "b", scores, -1, ckpt_path=last, **options)
    assert saved(tmp_path / "b") == {"last": 30, "best": 30}
    for name, value in resumed.lightning_module.state_dict().items():
        assert torch.equal(value, straight[name]), name
