"""The page of a run says what its folder holds, and believes none of it."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.page.support import made_run, picture
from zoo import page
from zoo.core.threads import machine
from zoo.metrics.meanings import Meaning
from zoo.page.__main__ import main
from zoo.page.curves import POINTS, charts
from zoo.page.pictures import FRAMES
from zoo.page.run import Run
from zoo.page.scores import best_of, cards
from zoo.page.story import changed, commands, facts, sections
from zoo.standards import HALF, HELD_OUT, SPREAD, Standard, verdict


class Reader(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.words, self._inside = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data):
        if not self._inside:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [a for t, a in self.tags if t == tag]


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "a run")


def read(folder):
    return Reader(page.write(folder).read_text())


def test_it_is_one_file_that_asks_nobody(run):
    found = read(run)
    for tag, attributes in found.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            where = attributes.get(name) or ""
            assert where.startswith(("data:", "#")) or not where or (tag, name) == ("a", "href"), (
                f"{tag} {name}={where[:60]}"
            )
        assert not any(name.startswith("on") for name in attributes)
    assert [a["href"] for a in found.all("a") if not a["href"].startswith("#")] == [
        "https://arxiv.org/abs/1703.10717"
    ]
    policy = next(a["content"] for a in found.all("meta") if "http-equiv" in a)
    assert "default-src 'none'" in policy and "img-src data:" in policy
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", (run / "index.html").read_text())


def test_it_says_what_was_run_and_what_the_model_is(run):
    page.record(run, "python -m zoo.fit --model began --model.gamma=0.7", 75.0)
    text = read(run).text
    for words in (
        "began on digits 8x8",
        "BEGAN: Boundary Equilibrium Generative Adversarial Networks",
        "train 1,437, val 180",
        "75 seconds",
        "python -m zoo.fit --model began --model.gamma=0.7",
        f"torch {torch.__version__.split('+')[0]}",
        "Objective",
        "L(x) - k_t L(G(z_D)), G(z_D) detached",
        "Sampling",
        "gamma: 0.7",
    ):
        assert words in text, words


def test_the_docstring_is_taken_apart(run):
    parts = dict(sections(Run(run)))
    assert [*parts][:4] == ["", "Paper", "Model", "Objective"] and "Controller" in parts
    assert parts["Sampling"] == [("z ~ U(-1, 1)^n, G(z) clamped to [-1, 1] and quantised.", False)]
    assert ("interpolate", True) in parts["Notes"]
    lines = parts["Objective"][0][0].splitlines()
    assert lines[0].startswith("D:  L(x)") and lines[1].startswith("G:  L(G(z_G))")


def test_options_that_differ_stand_beside_the_defaults(run):
    found = {option.key: (option.value, option.default) for option in changed(Run(run))}
    assert found == {
        "model.init_args.gamma": ("0.7", "1"),
        "trainer.max_steps": ("500", "9000"),
    }


def test_the_default_is_that_of_the_runs_own_data(run):
    document = yaml.safe_load((run / "config.yaml").read_text())
    document["data"] = {"class_path": "zoo.data.factor_grid.FactorGrid"}
    (run / "config.yaml").write_text(yaml.safe_dump(document))
    assert "python -m zoo.fit --model began --data factor_grid" in read(run).text
    assert {o.key for o in changed(Run(run))} >= {"model.init_args.gamma", "trainer.max_steps"}
    assert not any(o.key.startswith("data.") for o in changed(Run(run)))


def test_samples_stand_in_order_of_their_steps_and_the_last_is_seen(run):
    for step in (999_500, 1_000_000):
        picture(run / f"samples/step_{step}.png", 7, "late")
    assert dict(facts(Run(run)))["steps"] == "1,000,000"
    frames = [a for a in read(run).all("img") if "data-step" in a]
    assert [a["data-step"] for a in frames] == [
        "100",
        "200",
        "300",
        "400",
        "500",
        "999,500",
        "1,000,000",
    ]
    assert ["hidden" in a for a in frames] == [True] * 6 + [False]
    for i, frame in enumerate(frames):
        held = base64.b64decode(frame["src"].removeprefix("data:image/webp;base64,"))
        found = Image.open(io.BytesIO(held))
        assert found.size == (int(frame["width"]), int(frame["height"]))
        wanted = (40, 80, 120, 160, 200, 7, 7)[i]
        assert abs(int(np.asarray(found)[140, 60, 0]) - wanted) <= 3
        assert "drawn by began" in frame["alt"]


def test_of_many_pictures_some_are_shown_evenly_and_it_says_so(tmp_path):
    folder = made_run(tmp_path / "r", steps=1)
    for i in range(2, 101):
        os.link(folder / "samples/step_000100.png", folder / f"samples/step_{100 * i:06d}.png")
    found = read(folder)
    steps = [int(a["data-step"].replace(",", "")) for a in found.all("img") if "data-step" in a]
    assert len(steps) == FRAMES and steps[0] == 100 and steps[-1] == 10_000
    gaps = np.diff(steps)
    assert gaps.max() - gaps.min() <= 100
    assert f"{FRAMES} of 100 pictures, evenly over time" in found.text


def test_other_kinds_are_shown_once_the_last_of_each(run):
    (run / "explore").mkdir()
    picture(run / "explore/traversals.png", 3, "Traversals of began")
    found = read(run)
    assert found.text.count("Reconstructions, step 500") == 1
    assert "Reconstructions, step 400" not in found.text
    assert "explore/traversals.png" in found.text
    assert "4 of earlier steps are in samples/" in found.text


def test_curves_run_through_their_points_and_mark_the_best_and_the_last(run):
    found = {c.key: c for group in charts(Run(run)).values() for c in group}
    fid = found["val/fid_pixels"]
    places = [tuple(map(float, p.split(","))) for p in fid.line.split()]
    assert fid.steps == "100 200 300 400 500" and fid.values == "5 2 1 2 5.5"
    assert np.allclose(np.diff([x for x, _ in places]), places[1][0] - places[0][0], atol=0.11)
    heights = [y for _, y in places]
    assert heights[4] < heights[0] < heights[1] == heights[3] < heights[2]  # y falls upwards
    assert [(m[0], m[3]) for m in fid.marks] == [("best", "1"), ("last", "5.5")]
    assert (fid.marks[0][1], fid.marks[0][2]) == places[2]
    recall = found["val/recall_pixels"]
    assert [m[0] for m in recall.marks] == ["last"] and recall.meaning.aim == "higher is better"


def test_long_curves_keep_their_ends_and_their_best(tmp_path):
    folder = made_run(tmp_path / "r", steps=1)
    values = [2.0 + (i % 7) for i in range(5000)]
    values[1234] = 0.5
    rows = [f"{i + 1},{v}" for i, v in enumerate(values)]
    (folder / "metrics.csv").write_text("step,val/fid_pixels\n" + "\n".join(rows) + "\n")
    chart = charts(Run(folder))["Scores"][0]
    steps = [int(s) for s in chart.steps.split()]
    assert len(steps) <= POINTS + 1 and steps[0] == 1 and steps[-1] == 5000 and 1235 in steps
    assert chart.marks[0][3] == "0.5"


def test_the_best_is_the_first_of_equals_in_the_right_direction():
    points = [(1, 3.0), (2, 1.0), (3, 1.0), (4, 5.0)]
    for better, best in (("lower", (2, 1.0)), ("higher", (4, 5.0)), (2.9, (1, 3.0)), (None, None)):
        assert best_of(points, Meaning("", "", better)) == best


@pytest.mark.parametrize(
    ("value", "usual", "better", "said"),
    [
        (5, 10, "lower", "better"),
        (5, 10, "higher", "worse"),
        (9.5, 10, "lower", "alike"),
        (-3, -2, "higher", "worse"),
        (-3, -2, "lower", "better"),
        (1.5, 1.05, 1.0, "worse"),
        (1.0, 1.5, 1.0, "better"),
        (4, 9, None, ""),
    ],
)
def test_a_value_beside_the_usual_one(value, usual, better, said):
    assert verdict(value, usual, better) == said


def test_scores_are_explained_beside_the_default(run, monkeypatch):
    usual = Standard("digits 8x8", 9000, 3, {"val/fid_pixels": 10.0})
    monkeypatch.setattr("zoo.page.scores.standard", lambda model, data: usual)
    groups = cards(Run(run))
    assert [*groups] == ["fidelity", "diversity"]
    (fid,), (recall,) = groups.values()
    line = fid.lines[0]
    assert (line.key, line.last, line.best, line.step) == ("val/fid_pixels", "5.5", "1", "300")
    assert (line.usual, line.verdict) == ("10", "better") and fid.meaning.aim == "lower is better"
    assert recall.lines[0].best == "" and recall.lines[0].usual == ""  # the last is the best
    text = read(run).text
    assert "how far the features of samples are from those of the data" in text.lower()
    assert "the documented default: 9,000 steps on digits 8x8, seed 3" in text
    assert "5.5 1 step 300 10 ▲" in text


def test_below_a_score_stand_the_data_first_and_the_spread_beside_its_mean(run, monkeypatch):
    key = "val/fid_pixels"
    rows = {"gaussian": {key: 4.0}, HALF: {key: 1.0}, SPREAD: {key: 0.25}, HELD_OUT: {key: 0.5}}
    monkeypatch.setattr("zoo.page.scores.trivial", lambda data: rows | {"mean": {"val/is": 1.0}})
    (fid,), _ = cards(Run(run)).values()
    assert fid.lines[0].trivial == "held-out data 0.5 · half against half 1 ± 0.25 · gaussian 4"


def test_without_a_documented_default_there_is_no_column_for_it(run, monkeypatch):
    monkeypatch.setattr("zoo.page.scores.standard", lambda model, data: None)
    text = read(run).text
    assert "No default run of this model on these data is documented" in text and "▲" not in text


def test_commands_name_the_folder_so_that_a_shell_takes_it(run):
    lines = dict(commands(Run(run)))
    assert f"--ckpt '{run}'" in lines["draw more"] and "zoo.sample" in lines["draw more"]
    assert f"--ckpt_path '{run}' --trainer.max_steps=1000" in lines["train on"]
    assert "--import" not in lines["draw more"]


def test_a_resumed_run_adds_its_time_and_keeps_its_first_command(run):
    page.record(run, "first", 60.0)
    page.record(run, "second", 30.0)
    said = json.loads((run / "run.json").read_text())
    assert said["seconds"] == 90.0 and said["command"] == "first" and said["resumed"] is True
    assert said["machine"] == machine() and machine() in page.page(Run(run))


def test_a_run_with_nothing_but_its_config_has_a_page(tmp_path):
    folder = made_run(tmp_path / "r", steps=0)
    (folder / "metrics.csv").unlink()
    (folder / "protocol.json").unlink()
    text = read(folder).text
    assert "began" in text and "Curves" not in text and "Samples over time" not in text


EVIL = (
    "\"'></script><script>document.title='hit'</script><img src=x onerror=alert(1)>\"'`{{ 7*191 }}"
)


def hostile(folder):
    """A run whose every file says evil things."""
    made_run(folder, steps=2)
    document = yaml.safe_load((folder / "config.yaml").read_text())
    document["model"] = {"class_path": "os.system", "init_args": {EVIL: EVIL}}
    document["seed_everything"] = EVIL
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    rows = [["step", "val/" + EVIL, "train/" + EVIL], ["100", "1", "2"], ["200", "2", EVIL]]
    rows += [["300", "nan", "3"], [EVIL, "1", "2"], ["400", "9" * 400, "inf"]]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (folder / "metrics.csv").write_text("\n".join(quoted) + "\n")
    (folder / "protocol.json").write_text(
        json.dumps({"data": {"name": EVIL, "rows": {EVIL: EVIL}}})
    )
    record = {"command": EVIL, "seconds": EVIL, "ended": EVIL, "versions": {EVIL: EVIL}}
    (folder / "run.json").write_text(json.dumps(record))
    words = PngInfo()
    words.add_itxt("Title", EVIL)
    words.add_itxt("Description", EVIL)
    Image.new("RGB", (50, 50)).save(folder / "samples/step_000300.png", pnginfo=words)
    Image.new("RGB", (50, 50)).save(folder / "samples/x onerror=alert(1)_1.png", pnginfo=words)
    (folder / "samples/step_000400.png").write_bytes(b"<script>not a picture</script>")
    Image.new("1", (5000, 5000)).save(folder / "samples/step_000500.png")
    (folder / "samples/step_000600.png").symlink_to(folder / "samples/step_000300.png")
    return folder


def test_a_folder_from_elsewhere_is_shown_and_not_believed(tmp_path):
    found = read(hostile(tmp_path / "evil"))
    assert len(found.all("script")) == 1
    assert all("onerror" not in attributes for _, attributes in found.tags)
    assert not any(a.get("src") == "x" for a in found.all("img"))
    assert "{{ 7*191 }}" in found.text and "1337" not in found.text
    assert "os.system" in found.text
    assert [a["data-step"] for a in found.all("img") if "data-step" in a] == ["100", "200", "300"]
    assert "left out: step_000400.png" in found.text and "step_000500.png (more than" in found.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: &a [x, x]\nb: &b [*a, *a]\n" + "c: [*b, *b]\n" * 3),
        ("metrics.csv", "\x00\x01,,\nstep\n"),
        ("metrics.csv", ""),
        ("metrics.csv", "step,a\n" + "9" * 5000 + ",1\n100,1" + "0" * 5000),
        ("protocol.json", "[" * 100_000),
        ("protocol.json", "[1, 2]"),
        ("run.json", '{"seconds": {"a": 1}, "versions": [1]}'),
    ],
)
def test_damaged_files_cost_their_part_only(run, name, content):
    (run / name).write_text(content)
    assert "What next" in read(run).text


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    assert main(["--ckpt", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (
        said == f"zoo.page: error: {tmp_path} is not the folder of a run: it has no config.yaml\n"
    )


def test_the_command_writes_the_page_again(run, capsys):
    assert main(["--ckpt", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "index.html")
    first = (run / "index.html").read_bytes()
    assert main(["--ckpt", str(run)]) == 0 and (run / "index.html").read_bytes() == first
    assert not [*run.glob(".*part")]
