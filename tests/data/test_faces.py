"""Faces on disk with what a list says of them: CelebA's own files, and a table of one's own."""

import pytest
import torch
from PIL import Image

from zoo import registry

NAMES = ("Bald", "Eyeglasses", "Smiling")


def paint(path, level, size=(20, 26)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 255 - level)).save(path)


@pytest.fixture
def celeba(tmp_path):
    rows = [f"{i:06}.png {'1' if i % 2 else '-1'} -1  1" for i in range(1, 11)]
    for i in range(1, 11):
        paint(tmp_path / "img_align_celeba" / f"{i:06}.png", 20 * i)
    attributes = ["10", " ".join(NAMES), *rows]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    parts = [f"{i:06}.png {0 if i < 7 else 1 if i < 9 else 2}" for i in range(1, 11)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return tmp_path


def made(name, root, **options):
    return registry.get(name, "data")(root=str(root), size=8, **options)


def test_celeba_has_the_official_splits_and_every_attribute(celeba):
    data = made("celeba", celeba, label="Bald")
    assert [data.count(s) for s in ("train", "val", "test")] == [6, 2, 2]
    rows = data.examples(split="val")
    assert rows["x"].shape == (2, 3, 8, 8)
    assert [int(v) for v in rows["x"][:, 0, 4, 4]] == [140, 160]  # numbers 7 and 8
    assert rows["attributes"].tolist() == [[1, 0, 1], [0, 0, 1]]
    assert rows["y"].tolist() == [1, 0] and data.class_names == ("not Bald", "Bald")
    assert data.spec["attributes"].names == NAMES
    assert "y" not in made("celeba", celeba).spec


def test_a_limit_takes_the_first_of_each_split(celeba):
    data = made("celeba", celeba, limit=1)
    assert [data.count(s) for s in ("train", "val", "test")] == [1, 1, 1]
    assert int(data.examples(split="test")["x"][0, 0, 4, 4]) == 180


def test_an_image_that_cannot_be_read_is_named_and_skipped(celeba):
    (celeba / "img_align_celeba" / "000002.png").write_bytes(b"no image")
    data = made("celeba", celeba)
    with pytest.warns(UserWarning, match="1 of 10 images cannot be read.*000002.png"):
        assert data.count("train") == 5
    assert [int(v) for v in data.examples()["x"][:, 0, 4, 4]] == [20, 60, 80, 100, 120]
    assert data.examples()["attributes"][:, 0].tolist() == [1, 1, 0, 1, 0]
    assert data.found["skipped"]["cannot be read"]["number"] == 1


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "list_attr_celeba.txt",
            None,
            "there is no .*list_attr_celeba.txt; --data.root holds img_",
        ),
        ("list_attr_celeba.txt", "x\nA B\n1.png 1 1", "line 1: 'x' is not the number of images"),
        (
            "list_attr_celeba.txt",
            "2\nA B\n1.png 1 1",
            "states 2 images and lists 1; fetch it again",
        ),
        ("list_attr_celeba.txt", "1\nA B\n1.png 1", "line 3: 2 values of 1 or -1 are expected"),
        ("list_attr_celeba.txt", "1\nA B\n1.png 1 0", "line 3: 2 values of 1 or -1 .* '1 0'"),
        ("list_attr_celeba.txt", "1\nA\n99.png 1", "does not say the split of 99.png"),
        ("list_eval_partition.txt", "000001.png 3", "line 1: a split is 0, 1 or 2, got '3'"),
    ],
)
def test_what_is_wrong_with_celebas_files_is_said(celeba, file, text, said):
    if text is None:
        (celeba / file).unlink()
    else:
        (celeba / file).write_text(text)
    with pytest.raises(ValueError, match=said):
        made("celeba", celeba)


def test_a_label_that_is_no_attribute_is_refused_with_all_of_them(celeba):
    with pytest.raises(ValueError, match="'Bold' is none of the attributes Bald, Eyeglasses, Smil"):
        made("celeba", celeba, label="Bold")


@pytest.fixture
def table(tmp_path):
    lines = ["path,identity,pose,age"]
    for i in range(12):
        paint(tmp_path / "photos" / f"{i}.png", 10 * i)
        lines.append(f"photos/{i}.png,{'eva' if i % 3 else 'adam'},{10 * (i % 2) - 5},{6 * i}")
    file = tmp_path / "faces.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_columns_of_a_table_are_classes(table):
    data = made("faces", table)
    rows = [data.examples(split=s) for s in ("train", "val", "test")]
    assert [r.n for r in rows] == [10, 1, 1]
    level = torch.cat([r["x"][:, 0, 4, 4] for r in rows]) / 10
    identity, pose, age, y = (
        torch.cat([r[k] for r in rows]) for k in ("identity", "pose", "age", "y")
    )
    assert sorted(level.tolist()) == [*range(12)]
    assert torch.equal(identity, (level % 3 != 0).long()) and torch.equal(y, identity)
    assert torch.equal(pose, (level % 2).long())
    years = (6 * level).int()
    wanted = sum((years >= start).long() for start in (19, 30, 40, 50, 60))
    assert torch.equal(age, wanted)
    spec = data.spec
    assert spec["identity"].names == ("adam", "eva") and spec["pose"].names == ("-5", "5")
    assert spec["age"].names[0] == "0-18" and spec["age"].names[-1] == "60+"


@pytest.mark.parametrize(("age", "group"), [(18, 0), (18.9, 0), (19, 1), (29, 1), (59, 4), (60, 5)])
def test_an_age_is_of_the_group_of_its_whole_years(table, age, group):
    first, *rest = table.read_text().splitlines()
    rest = [",".join([*line.split(",")[:3], str(age)]) for line in rest]
    table.write_text("\n".join([first, *rest]))
    assert set(made("faces", table).examples()["age"].tolist()) == {group}


def test_the_class_is_the_column_that_is_asked_for(table):
    assert made("faces", table, label="age").class_names[1] == "19-29"
    assert made("faces", table, label="none").class_names == ()
    table.write_text("path,age\nphotos/0.png,3\nphotos/1.png,33\nphotos/2.png,63\n")
    assert made("faces", table).spec["y"].words == 6
    with pytest.raises(ValueError, match=r"label=pose, but .* has no such column; it has age"):
        made("faces", table, label="pose")


def test_a_column_of_splits_is_kept_to(table):
    lines = table.read_text().splitlines()
    splits = ["split", *["train"] * 8, *["val"] * 3, "test"]
    table.write_text("\n".join(f"{a},{b}" for a, b in zip(lines, splits, strict=True)))
    data = made("faces", table)
    assert [data.count(s) for s in ("train", "val", "test")] == [8, 3, 1]
    assert int(data.examples(split="test")["x"][0, 0, 4, 4]) == 110
    table.write_text(table.read_text().replace(",test", ",train"))
    with pytest.raises(ValueError, match="no image of the split test of"):
        made("faces", table).examples()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path\na.png", r"has the columns \['path'\]; --data.root is a .csv"),
        ("path,age\n", "lists no image"),
        ("path,age\na.png,old", "line 2: 'old' is not an age in years"),
        ("path,pose\na.png,1\na.png,left", "line 3: 'left' is not a pose, a whole number"),
        ("path,age,split\na.png,3,dev", "line 2: a split is train, val or test, got 'dev'"),
        ("path,age\na.png,3\nb.png,4\nc.png,5", "no image of .* can be read: a.png"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, said):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        made("faces", file).examples()


def test_a_mirrored_face_has_another_pose(table):
    with pytest.raises(ValueError, match=r"looks the other way.*set --data.flip=false"):
        made("faces", table, flip=True)


def test_half_of_training_is_mirrored_and_no_validation(tmp_path):
    lines = ["path,age"]
    for i in range(40):
        image = Image.new("RGB", (8, 8))
        image.putpixel((0, 0), (255, 255, 255))
        image.save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,30")
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines))
    data = made("faces", file, flip=True, batch_size=32)
    data.setup("fit")
    rows = next(iter(data.train_dataloader()))["x"]
    mirrored = (rows[:, 0, 0, 7] == 255).sum()
    assert 5 < mirrored < 27 and torch.equal(rows[:, 0, 0, 0] == 0, rows[:, 0, 0, 7] == 255)
    assert (data.examples(split="val")["x"][:, 0, 0, 0] == 255).all()


@pytest.mark.parametrize("age", ["nan", "inf", "-4", "151"])
def test_an_age_that_nobody_has_is_named_with_its_line(tmp_path, age):
    (tmp_path / "t.csv").write_text(f"path,age\na.png,30\nb.png,{age}\n")
    with pytest.raises(ValueError, match=rf"line 3: '{age}' is not an age in years"):
        made("faces", tmp_path / "t.csv")


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(ValueError, match=r"faces: .*t\.csv is no text"):
        made("faces", tmp_path / "t.csv")
