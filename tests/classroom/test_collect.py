"""Submissions are found as course platforms and students leave them."""

import io
import json
import os
import zipfile

import nbformat
import pytest

from tools.classroom import collect as module
from tools.classroom.collect import collect, read


def notebook(text, **metadata):
    cells = [nbformat.v4.new_code_cell(text, id="a")]
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)).encode()


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def put(folder, **files):
    for i, (name, data) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1e9 + i, 1e9 + i))


def students(folder):
    return {each.student: each for each in collect(folder)[0]}


@pytest.mark.parametrize(
    "name, student",
    [
        ("alice.ipynb", "alice"),
        ("alice/sgd.ipynb", "alice"),
        ("alice/week 1/sgd.ipynb", "alice"),
        ("Ann Lee_123_assignsubmission_file_/sgd.ipynb", "Ann Lee (123)"),
        ("Ann Lee_123_assignsubmission_file/part/sgd.ipynb", "Ann Lee (123)"),
        ("leeann_123_4567_sgd.ipynb", "leeann (123)"),
        ("leeann_LATE_123_4567_sgd_final-2.ipynb", "leeann (123)"),
        ("Ünï cödé.ipynb", "Ünï cödé"),
        ("alice.IPYNB", "alice"),
    ],
)
def test_students_have_the_names_of_the_platform(name, student, tmp_path):
    put(tmp_path, **{name: notebook("1")})
    assert list(students(tmp_path)) == [student]
    assert ("late" in students(tmp_path)[student].notes) == ("LATE" in name)


def test_a_zip_of_the_course_is_opened_and_one_of_a_student_is_theirs(tmp_path):
    one = notebook("1")
    moodle = {
        "Ann Lee_12_assignsubmission_file_/sgd.ipynb": one,
        "B_13_assignsubmission_file_/x.ipynb": one,
    }
    canvas = {
        "leejo_14_999_sgd.ipynb": one,
        "kim_15_998_work.zip": zipped(**{"deep/sgd.ipynb": one}),
    }
    put(tmp_path, **{"moodle.zip": zipped(**moodle), "canvas.zip": zipped(**canvas)})
    put(tmp_path, **{"zoe.zip": zipped(**{"a/sgd.ipynb": one, "data.csv": b"1"})})
    assert sorted(students(tmp_path)) == ["Ann Lee (12)", "B (13)", "kim (15)", "leejo (14)", "zoe"]


def test_of_several_files_the_newest_counts(tmp_path):
    put(
        tmp_path,
        **{
            "lee_1_50_sgd-2.ipynb": notebook("canvas, third"),
            "lee_1_49_sgd.ipynb": notebook("canvas, first"),
            "lee_1_51_sgd-1.ipynb": notebook("canvas, second"),
            "bob/sgd.ipynb": notebook("old"),
            "bob/sgd (1).ipynb": notebook("new"),
        },
    )
    found = students(tmp_path)
    assert b"canvas, third" in found["lee (1)"].data
    assert b"new" in found["bob"].data and "the newest of 2 files" in found["bob"].notes


def test_numbers_at_the_end_of_names_count_students_except_in_names_of_canvas(tmp_path):
    names = [f"student-0{k}" for k in range(1, 6)]
    others = {
        "student-05 (1).ipynb": notebook("newer"),
        "bob/sgd-1.ipynb": notebook("bob's"),
        "kim_15_98_a-1.zip": zipped(**{"sgd.ipynb": notebook("new")}),
        "kim_15_97_a.zip": zipped(**{"sgd.ipynb": notebook("old")}),
    }
    put(tmp_path, **{f"{name}.ipynb": notebook(name) for name in names} | others)
    found = students(tmp_path)
    assert sorted(found) == ["bob", "kim (15)", *names]
    assert b"newer" in found["student-05"].data and b"new" in found["kim (15)"].data


def test_an_entry_of_a_zip_that_is_broken_costs_only_itself(tmp_path):
    one = notebook("1" * 100)
    whole = zipped(**{"ann.ipynb": one, "bob.ipynb": notebook("2" * 100), "cid.ipynb": one})
    place = whole.index(b"PK\x01\x02") + 12  # in the directory: time, date
    undated = whole[:place] + b"\0\0\0\0" + whole[place + 4 :]
    spoilt = undated.replace(b"2" * 100, b"3" * 100)
    put(tmp_path, **{"class.zip": spoilt})
    found, others = collect(tmp_path)
    assert [each.student for each in found] == ["ann", "cid"]
    assert len(others) == 1 and others[0].startswith("class.zip/bob.ipynb: cannot be read")


def test_notebooks_with_other_names_stay_apart(tmp_path):
    put(tmp_path, **{"group/ann.ipynb": notebook("1"), "group/bob.ipynb": notebook("2")})
    assert sorted(students(tmp_path)) == ["group/ann", "group/bob"]


def test_left_over_files_are_ignored_and_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    folder = tmp_path / "class"
    put(
        folder,
        **{
            "ann/.ipynb_checkpoints/sgd-checkpoint.ipynb": notebook("1"),
            "__MACOSX/ann/._sgd.ipynb": b"x",
            "ann/sgd.ipynb": notebook("2"),
            "ann/notes.pdf": b"%PDF",
        },
    )
    secret.write_bytes(notebook("secret"))
    (folder / "link.ipynb").symlink_to(secret)
    found, others = collect(folder)
    assert [each.student for each in found] == ["ann"]
    assert others == ["ann/notes.pdf: no notebook", "link.ipynb: a link, not followed"]


def test_the_same_bytes_are_noted(tmp_path):
    put(tmp_path, **{"ann.ipynb": notebook("1"), "bob.ipynb": notebook("1")})
    put(tmp_path, **{"c.ipynb": b"", "d.ipynb": b""})
    found = students(tmp_path)
    assert found["bob"].notes == ("the same file as ann",) and found["d"].notes == ()


def test_hostile_zips_are_survived(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    monkeypatch.setattr(module, "LARGEST_ZIP", 10_000)
    put(
        tmp_path,
        **{
            "bomb.zip": zipped(**{"a/big.ipynb": b" " * 5000, "b/large.zip": b" " * 50_000}),
            "slip.zip": zipped(**{"../../x.ipynb": notebook("1"), "/abs.ipynb": notebook("2")}),
            "broken.zip": b"PK\x03\x04 nothing",
        },
    )
    found, others = collect(tmp_path)
    assert {each.student: each.data for each in found if "big" in str(each.path)} == {"bomb": b""}
    assert not any(".." in str(each.path) for each in found)
    assert any("broken.zip" in line for line in others)
    assert any("large.zip: too large" in line for line in others)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b'{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [1], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [{}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"nbformat": 99}',
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_said_to_be_one(data):
    found = read(data)
    assert found.cells == [] and found.wrong.startswith("no notebook that can be read")


def test_an_empty_file_is_said_to_be_one():
    assert read(b" \n").wrong == "the file is empty"


def test_an_old_format_and_an_old_kernel_are_read():
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"kernelspec": {"name": "python2", "display_name": "gone"}},
        "worksheets": [
            {"cells": [{"cell_type": "code", "input": ["x = 1\n", "y = 2"], "outputs": []}]}
        ],
    }
    assert read(json.dumps(old).encode()).cells == [("code", "x = 1\ny = 2")]
    found = read(notebook("1", kernelspec={"name": "python2", "display_name": "gone"}))
    assert found.cells == [("code", "1")] and not found.wrong


def test_the_assignment_is_read():
    assert read(notebook("1", otter={"assignment_name": "sgd"})).assignment == "sgd"
    assert read(notebook("1", otter=[1])).assignment == ""
