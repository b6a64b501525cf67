"""The annotation table and its CSV: bad files, there and back, and keras-retinanet's own reader."""

import logging
import os
import posixpath
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from retinamask.dataset import annotations
from retinamask.dataset.annotations import (
    BOX_COLUMNS,
    COLUMNS,
    DETECTION_COLUMNS,
    AnnotationError,
    make_table,
    read_annotations,
    read_classes,
    read_detections,
    write_annotations,
    write_classes,
    write_detections,
)

CLASSES = {"mask": 0, "no_mask": 1}
EMPTY = (None,) * 5
TABLE = make_table(
    [
        ("images/b.jpg", 1, 2, 30, 40, "mask"),
        ("images/empty.jpg", *EMPTY),
        ("images/a.jpg", 0, 0, 5, 6, "no_mask"),
        ("images/b.jpg", 3, 3, 4, 4, "no_mask"),
        ("../Größe, 人/a b.jpg", 10, 20, 1000, 2000, "mask"),
        (' quoted "x".jpg', 1, 2, 3, 4, "mask"),
    ]
)


@pytest.fixture
def csv_path(tmp_path) -> Path:
    return tmp_path / "annotations.csv"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- Annotation files that cannot be used ---

ROW = "a.jpg,1,2,3,4,mask\n"
WHOLE_FILE = [
    ("", r"annotations\.csv is empty; expected rows of image_path,x1,y1,x2,y2,class_name"),
    ("\n \n,,,,,\n", "is empty"),
    ("\ufeff", "is empty"),
    ("ä.jpg,1,2,3,4,mask\n".encode("latin-1"), r"annotations\.csv: not UTF-8 text .* at byte 0\); save it as UTF-8"),
    (ROW.encode("utf-16"), "not UTF-8 text"),
    (ROW + 'b.jpg,1,2,3,4,"mask\n' + ROW, r"annotations\.csv line 3: not readable as CSV"),
    (ROW + '"b"x.jpg,1,2,3,4,mask\n', r"annotations\.csv line 2: not readable as CSV"),
]
NO_HEADER = "keras-retinanet's CSV has no header row"
ONE_LINE = [
    ("b.jpg", "found 1 column(s), expected 6: image_path,x1,y1,x2,y2,class_name"),
    ("b.jpg,1,2,3,mask", "found 5 column(s), expected 6"),
    ("b.jpg,,,,", "found 5 column(s), expected 6"),
    ("b.jpg;1;2;3;4;mask", f"found 1 column(s), expected 6: {','.join(COLUMNS)}; use commas, not semicolons"),
    (",1,2,3,4,mask", "found no image path in the first column"),
    ("image_path,x1,y1,x2,y2,class_name", f"x1 is 'x1', expected a number of pixels; {NO_HEADER}"),
    ("filename,xmin,ymin,xmax,ymax,class", f"x1 is 'xmin', expected a number of pixels; {NO_HEADER}"),
    ("b.jpg,1,zwei,3,4,mask", "y1 is 'zwei', expected a number of pixels"),
    ("b.jpg,1,2,,4,mask", "x2 is '', expected a number of pixels"),
    ("b.jpg,1,2,3,nan,mask", "y2 is 'nan', expected a number of pixels"),
    ("b.jpg,1,2,inf,4,mask", "x2 is 'inf', expected a number of pixels"),
    ("b.jpg,1,2,1e999,4,mask", "x2 is '1e999', expected a number of pixels"),
    ("b.jpg,3,2,1,4,mask", "x2 (1) must exceed x1 (3) in b.jpg"),
    ("b.jpg,1,4,3,4,mask", "y2 (4) must exceed y1 (4) in b.jpg"),
    ("b.jpg,1,2,3,4,", "found a box without a class for b.jpg"),
    ("b.jpg,1,2,3,4,masc", "class 'masc' is not among the classes (mask, no_mask); add it to classes.csv or fix"),
    ("b.jpg,1,2,3,4,Mask", "class 'Mask' is not among the classes"),
]


@pytest.mark.parametrize(("content", "message"), WHOLE_FILE)
def test_a_file_that_is_no_annotation_csv(csv_path, content, message):
    with pytest.raises(AnnotationError, match=message):
        read_annotations(written(csv_path, content), CLASSES)


@pytest.mark.parametrize(("line", "message"), ONE_LINE)
def test_a_bad_line_is_named(csv_path, line, message):
    with pytest.raises(AnnotationError) as raised:
        read_annotations(written(csv_path, f"{ROW}\r\n\n{line}\n{ROW}"), CLASSES)
    assert str(raised.value).startswith(f"{csv_path} line 4: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [read_annotations, read_detections, read_classes])
def test_no_such_file(tmp_path, read):
    with pytest.raises(AnnotationError, match=r"none\.csv does not exist; expected a CSV file"):
        read(tmp_path / "none.csv")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read(tmp_path)


def test_all_bad_lines_are_named_at_once(csv_path):
    bad = "b.jpg,x,2,3,4,mask\nb.jpg,1,2,3,4,what\nb.jpg;1\n"
    with pytest.raises(AnnotationError) as raised:
        read_annotations(written(csv_path, ROW + bad), CLASSES)
    named = [line.partition(": ")[0] for line in str(raised.value).splitlines()]
    assert named == [f"{csv_path} line {number}" for number in (2, 3, 4)]


def test_of_very_many_bad_lines_twenty_are_named(csv_path):
    with pytest.raises(AnnotationError) as raised:
        read_annotations(written(csv_path, "b.jpg\n" * 1000))
    lines = str(raised.value).splitlines()
    assert (len(lines), lines[-1]) == (21, "... and 980 more")


# --- Annotation files that are accepted ---


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("a.jpg,,,,,", ("a.jpg", *EMPTY)),
        ("a.jpg, , , , ,\n", ("a.jpg", *EMPTY)),
        ("a.jpg,1,2,3,4,mask", ("a.jpg", 1, 2, 3, 4, "mask")),
        ("\ufeffa.jpg,1,2,3,4,mask\r\n", ("a.jpg", 1, 2, 3, 4, "mask")),
        ("a.jpg,1,2,3,4,mask\r", ("a.jpg", 1, 2, 3, 4, "mask")),
        ("\n  \n,,,,,\na.jpg,1,2,3,4,mask\n\n", ("a.jpg", 1, 2, 3, 4, "mask")),
        ("a.jpg , 1 ,2 , 3,4\t, mask  ", ("a.jpg", 1, 2, 3, 4, "mask")),
        (" a.jpg,1,2,3,4,mask", (" a.jpg", 1, 2, 3, 4, "mask")),
        ("a.jpg,1.5,2.25,3e1,+4.0,mask", ("a.jpg", 1.5, 2.25, 30, 4, "mask")),
        ("a.jpg,-5,-6,3,4,mask", ("a.jpg", -5, -6, 3, 4, "mask")),
        ("images\\sub\\a.jpg,1,2,3,4,mask", ("images/sub/a.jpg", 1, 2, 3, 4, "mask")),
        ('"a, b.jpg",1,2,3,4,"mask"', ("a, b.jpg", 1, 2, 3, 4, "mask")),
        ("Größe/人.jpg,1,2,3,4,mask", ("Größe/人.jpg", 1, 2, 3, 4, "mask")),
        ("/data/a.jpg,1,2,3,4,mask", ("/data/a.jpg", 1, 2, 3, 4, "mask")),
        ("a.jpg,1,2,3,4,NA", ("a.jpg", 1, 2, 3, 4, "NA")),  # a class, not a missing value
    ],
)
def test_what_is_accepted(csv_path, content, row):
    assert_frame_equal(read_annotations(written(csv_path, content)), make_table([row]))


@pytest.mark.parametrize("more", [",", ",0.93", ",0,crowd", ",,,"])
def test_more_columns_are_not_read_and_logged(csv_path, caplog, more):
    content = f"a.jpg,1,2,3,4,mask{more}\nb.jpg,,,,,{more}\nc.jpg,,,,,\n"
    with caplog.at_level(logging.WARNING):
        table = read_annotations(written(csv_path, content))
    assert_frame_equal(table, make_table([("a.jpg", 1, 2, 3, 4, "mask"), ("b.jpg", *EMPTY), ("c.jpg", *EMPTY)]))
    assert caplog.messages == [f"{csv_path}: 2 row(s) have more than 6 columns; the rest is not read"]


def test_needless_rows_without_objects_go(csv_path):
    content = "a.jpg,,,,,\na.jpg,1,2,3,4,mask\nb.jpg,,,,,\nb.jpg,,,,,\na.jpg,1,2,3,4,mask\n"
    box = ("a.jpg", 1, 2, 3, 4, "mask")
    assert_frame_equal(read_annotations(written(csv_path, content)), make_table([box, ("b.jpg", *EMPTY), box]))


# --- There and back ---


@pytest.mark.parametrize("table", [TABLE.iloc[1:2], TABLE.iloc[:1], TABLE, TABLE.iloc[::-1]], ids=len)
def test_annotations_there_and_back(csv_path, table):
    table = table.reset_index(drop=True)
    assert write_annotations(table, csv_path) == 0
    assert_frame_equal(read_annotations(csv_path, CLASSES), table)
    assert b"\r" not in csv_path.read_bytes()


def test_annotations_on_disk(csv_path):
    write_annotations(TABLE.iloc[:2], csv_path)
    assert csv_path.read_text() == "images/b.jpg,1,2,30,40,mask\nimages/empty.jpg,,,,,\n"


@pytest.mark.parametrize(
    ("box", "on_disk", "moved"),
    [
        ((0, 0, 5, 5), "0,0,5,5", 0),
        ((-0.2, 0.4, 4.6, 5), "0,0,5,5", 1),
        ((0.5, 1.5, 1.5, 2.5), "1,2,2,3", 1),  # one pixel wide: halves go up and it stays
        ((2.49, 0, 3.49, 9), "2,0,3,9", 1),
    ],
)
def test_rounding_to_whole_pixels(csv_path, box, on_disk, moved):
    assert write_annotations(make_table([("a.jpg", *box, "mask"), ("b.jpg", *EMPTY)]), csv_path) == moved
    assert csv_path.read_text() == f"a.jpg,{on_disk},mask\nb.jpg,,,,,\n"


@pytest.mark.parametrize("box", [(1, 1, 1, 5), (1, 1, 1.4, 5), (1, 5, 9, 2), (1, float("nan"), 3, 4)])
def test_a_box_that_vanishes_is_not_written(csv_path, box):
    csv_path.write_text("old")
    table = make_table([("fine.jpg", 1, 1, 5, 5, "mask"), ("thin.jpg", *box, "mask")])
    with pytest.raises(AnnotationError, match=r"annotations\.csv: 1 box\(es\) vanish .* thin\.jpg"):
        write_annotations(table, csv_path)
    assert csv_path.read_text() == "old"


def test_joined_tables_are_written_with_every_row(csv_path):
    one = annotations.make_table([("a.jpg", 1.2, 2, 3, 4, "mask"), ("empty.jpg", *[np.nan] * 4, None)])
    other = annotations.make_table([("b.jpg", 5, 6, 7.8, 8, "no_mask"), ("c.jpg", 1, 1, 2, 2, "mask")])
    assert annotations.write_annotations(pd.concat([one, other]), csv_path) == 2
    assert csv_path.read_text().splitlines() == [
        "a.jpg,1,2,3,4,mask",
        "empty.jpg,,,,,",
        "b.jpg,5,6,8,8,no_mask",
        "c.jpg,1,1,2,2,mask",
    ]


def test_keras_retinanet_reads_what_we_write_and_we_what_it_reads(tmp_path):
    from retinamask.detectors import _keras

    _keras.prepare()
    from keras_retinanet.preprocessing.csv_generator import CSVGenerator

    def accepted(name: str) -> dict[str, list[list[float]]]:
        generator = CSVGenerator(str(tmp_path / name), str(tmp_path / "classes.csv"), group_method="none")
        loaded = {path: generator.load_annotations(index) for index, path in enumerate(generator.image_names)}
        found = {path: np.column_stack([found["bboxes"], found["labels"]]) for path, found in loaded.items()}
        return {posixpath.normpath(path): boxes.tolist() for path, boxes in found.items()}

    def ours(table: pd.DataFrame) -> dict[str, list[list[float]]]:
        boxes = annotations.objects(table)
        boxes = boxes.assign(id=boxes["class_name"].map(CLASSES).astype(float))
        return {
            path: boxes.loc[boxes["image_path"] == path, [*BOX_COLUMNS, "id"]].values.tolist()
            for path in annotations.image_paths(table)
        }

    write_classes(CLASSES, tmp_path / "classes.csv")
    write_annotations(TABLE, tmp_path / "ours.csv")
    assert accepted("ours.csv") == ours(TABLE)

    theirs = (
        "a.jpg,1,2,3,4,mask\r\nb.jpg,,,,,\nb.jpg, 1,2 ,+3,1000,no_mask,extra,columns\n"
        '"with, comma.jpg",-1,-2,3,4,mask\nc d.jpg,,,,,\n/abs/ä.jpg,0,0,1,1,mask\nc.jpg,,,,,,\n a.jpg,,,,,'
    )
    written(tmp_path / "theirs.csv", theirs)
    found = {posixpath.normpath(path): rows for path, rows in accepted("theirs.csv").items()}  # ./a.jpg is a.jpg
    assert found == ours(read_annotations(tmp_path / "theirs.csv", CLASSES))


def test_one_image_is_spelt_in_one_way(tmp_path):
    (tmp_path / "set").mkdir()
    written(tmp_path / "set" / "a.jpg", "")
    spellings = ["a.jpg", "./a.jpg", "../set/a.jpg", str(tmp_path / "set" / "a.jpg")]
    written(tmp_path / "set" / "t.csv", "".join(f"{path},{x},2,9,9,mask\n" for x, path in enumerate(spellings)))
    assert list(read_annotations(tmp_path / "set" / "t.csv")["image_path"]) == ["a.jpg"] * 4


# --- Detections ---

DETECTIONS = make_table(
    [
        ("b.jpg", 1.25, 2, 30.75, 40, "mask", 0.9375),
        ("empty.jpg", *EMPTY, None),
        ("a.jpg", 0, 0, 5, 6, "no_mask", 0),
        ("a.jpg", 0, 0, 5, 6, "mask", 1),
    ],
    DETECTION_COLUMNS,
)


def test_detections_there_and_back(csv_path):
    write_detections(DETECTIONS, csv_path)
    assert csv_path.read_text() == (
        "image_path,x1,y1,x2,y2,class_name,score\n"
        "b.jpg,1.25,2.00,30.75,40.00,mask,0.9375\nempty.jpg,,,,,,\n"
        "a.jpg,0.00,0.00,5.00,6.00,no_mask,0.0000\na.jpg,0.00,0.00,5.00,6.00,mask,1.0000\n"
    )
    assert_frame_equal(read_detections(csv_path), DETECTIONS)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_parts_of_detections_become_one_file_of_each_ending(suffix, tmp_path):
    """Rounded alike, read back alike, and as pandas reads them."""
    path, long = tmp_path / f"found{suffix}", DETECTIONS.assign(x2=DETECTIONS["x2"] + 0.001)
    write_detections((part for part in (long[:1], long[1:2], long[2:2], long[2:])), path)
    assert_frame_equal(read_detections(path), DETECTIONS)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".json": pd.read_json}[suffix]
    rows = read(path).itertuples(index=False, name=None)
    assert_frame_equal(make_table(rows, DETECTION_COLUMNS), DETECTIONS)
    write_detections(iter(()), path)
    with pytest.raises(AnnotationError, match="is empty; expected rows of image_path,x1"):
        read_detections(path)


def test_detections_are_read_without_a_header_too(csv_path):
    write_detections(DETECTIONS, csv_path)
    assert_frame_equal(read_detections(written(csv_path, csv_path.read_text().partition("\n")[2])), DETECTIONS)


def test_detections_in_a_file_of_an_unknown_ending(tmp_path):
    with pytest.raises(AnnotationError, match="found.xlsx: found no known ending, expected one of .csv, .parquet, .js"):
        write_detections(DETECTIONS, tmp_path / "found.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no parquet", "a.parquet: not readable .*; expected what retinamask detect writes"),
        ("a.parquet", None, "a.parquet: not readable .*"),
        ("a.json", b"[1]", "a.json: not readable .*"),
        ("a.json", b'[{"image_path": "a.jpg"}]', "a.json: not readable .KeyError.'x1'"),
        ("a.json", b'{"annotations": []}', "a.json: not readable .*"),
        (
            "a.json",
            b'[{"image_path":"a","x1":3,"y1":0,"x2":1,"y2":9,"class_name":"b","score":1}]',
            "line 1: x2 .1. must",
        ),
    ],
)
def test_other_parquet_and_json_files_are_refused(name, content, message, tmp_path):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        read_detections(tmp_path / name)


def test_a_sliver_at_the_edge_does_not_spoil_the_file(csv_path):
    write_detections(make_table([("a.jpg", 399.998, 0, 400, 9, "mask", 0.5)], DETECTION_COLUMNS), csv_path)
    assert read_detections(csv_path)[BOX_COLUMNS].values.tolist() == [[400, 0, 400, 9]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,1,2,3,4,mask", "found 6 column(s), expected 7: image_path,x1,y1,x2,y2,class_name,score"),
        ("a.jpg,1,2,3,4,mask,", "score is '', expected a number from 0 to 1"),
        ("a.jpg,1,2,3,4,mask,high", "score is 'high', expected a number"),
        ("a.jpg,1,2,3,4,mask,nan", "score is 'nan', expected a number"),
        ("a.jpg,1,2,3,4,mask,1.01", "score is '1.01', expected a number from 0 to 1"),
        ("a.jpg,1,2,3,4,mask,-0.1", "score is '-0.1', expected a number from 0 to 1"),
        ("a.jpg,3,2,1,4,mask,0.5", "x2 (1) must exceed x1 (3) in a.jpg"),
    ],
)
def test_a_bad_detection_is_named(csv_path, line, message):
    with pytest.raises(AnnotationError) as raised:
        read_detections(written(csv_path, f"b.jpg,,,,,,\n{line}\n"))
    assert str(raised.value).startswith(f"{csv_path} line 2: {message}")


# --- Classes ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"classes\.csv: ids must be 0, 1, 2, ... each once, found none"),
        ("mask\n", r"classes\.csv line 1: found 1 columns, expected 2: name,id"),
        ("mask,0\nno_mask,1,extra\n", r"classes\.csv line 2: found 3 columns, expected 2"),
        ("mask;0\n", "line 1: found 1 columns"),
        ("name,id\nmask,0\n", r"line 1: found 'name,id', expected a name and an id such as mask,0"),
        ("0,mask\n", "line 1: found '0,mask', expected"),
        ("mask,0.0\n", "line 1: found 'mask,0.0', expected"),
        ("mask,-1\n", "line 1: found 'mask,-1', expected"),
        ("mask,²\n", "line 1: found 'mask,²', expected"),
        (",0\n", "line 1: found ',0', expected"),
        ("mask,0\n\nmask,1\n", r"line 3: class 'mask' stands here twice"),
        ("mask,0\nno_mask,0\n", r"each once, found 0, 0; renumber them"),
        ("mask,0\nno_mask,2\n", r"each once, found 0, 2; renumber them"),
        ("mask,1\nno_mask,2\n", r"each once, found 1, 2; renumber them"),
    ],
)
def test_bad_classes(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message):
        read_classes(written(tmp_path / "classes.csv", content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("mask,0", ["mask"]),
        ("\ufeffno mask,1\r\n\r\n mask , 0 \r\n", ["mask", "no mask"]),
        ('"a, b",0\nGröße,1\n', ["a, b", "Größe"]),
    ],
)
def test_classes_come_in_the_order_of_their_ids(tmp_path, content, expected):
    classes = read_classes(written(tmp_path / "classes.csv", content))
    assert list(classes.items()) == [(name, number) for number, name in enumerate(expected)]
    write_classes(dict(reversed(classes.items())), tmp_path / "again.csv")
    assert list(read_classes(tmp_path / "again.csv").items()) == list(classes.items())


# --- The table ---


def test_an_empty_table():
    table = make_table([])
    assert list(table.columns) == COLUMNS
    assert annotations.objects(table).empty
    assert annotations.image_paths(table) == []
    assert annotations.count_boxes(table, CLASSES).to_numpy().tolist() == [[0, 0], [0, 0]]
    assert (table.dtypes == make_table([("a.jpg", 1, 2, 3, 4, "mask")]).dtypes).all()


def test_looking_at_a_table():
    assert len(annotations.objects(TABLE)) == 5
    assert annotations.image_paths(TABLE)[:3] == ["images/b.jpg", "images/empty.jpg", "images/a.jpg"]
    some = annotations.of_images(TABLE, ["images/b.jpg", "images/empty.jpg", "not there"])
    assert some["image_path"].tolist() == ["images/b.jpg", "images/empty.jpg", "images/b.jpg"]
    counts = annotations.count_boxes(TABLE, {"worn_wrong": 2, **CLASSES})
    assert counts.to_dict("index") == {
        "worn_wrong": {"boxes": 0, "images": 0},
        "mask": {"boxes": 3, "images": 3},
        "no_mask": {"boxes": 2, "images": 2},
    }


def test_unknown_classes_of_a_table():
    annotations.check_classes(make_table([("a.jpg", *EMPTY)]), {}, "here")
    with pytest.raises(AnnotationError, match=r"here: class 'no_mask' is not among the classes \(mask\)"):
        annotations.check_classes(TABLE, {"mask": 0}, "here")


@pytest.mark.parametrize(
    "other",
    [
        TABLE.iloc[::-1],
        TABLE.sample(frac=1, random_state=0),
        TABLE.assign(note="x"),
        TABLE.replace({"x1": {10.0: 10.2}}),
    ],
)
def test_fingerprint_of_equal_annotations(other):
    expected = annotations.fingerprint(TABLE, CLASSES)
    assert annotations.fingerprint(other, dict(reversed(CLASSES.items()))) == expected
    assert len(expected) == 64


@pytest.mark.parametrize(
    ("table", "classes"),
    [
        (TABLE.iloc[:0], CLASSES),
        (TABLE.iloc[1:], CLASSES),
        (TABLE.replace({"x1": {10.0: 11.0}}), CLASSES),
        (TABLE.replace({"class_name": {"mask": "masks"}}), CLASSES),
        (TABLE.replace({"image_path": {"images/a.jpg": "images/c.jpg"}}), CLASSES),
        (TABLE, {"mask": 1, "no_mask": 0}),
    ],
)
def test_fingerprint_of_other_annotations(table, classes):
    assert annotations.fingerprint(table, classes) != annotations.fingerprint(TABLE, CLASSES)


# --- Paths ---


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a", "a", "images/b.jpg"),
        ("a", ".", "a/images/b.jpg"),
        ("a", "b/c", "../../a/images/b.jpg"),
        ("a", "a/images", "b.jpg"),
    ],
)
def test_moving_a_table_to_another_folder(tmp_path, old, new, expected):
    table = annotations.moved(TABLE.iloc[:2], tmp_path / old, tmp_path / new)
    assert table["image_path"].tolist()[0] == expected
    assert_frame_equal(annotations.moved(table, tmp_path / new, tmp_path / old), TABLE.iloc[:2])


def test_an_absolute_path_is_found_from_anywhere(tmp_path):
    table = make_table([(str(tmp_path / "images" / "a.jpg"), *EMPTY)])
    assert annotations.moved(table, "/somewhere", tmp_path)["image_path"].tolist() == ["images/a.jpg"]


@pytest.mark.parametrize("linked", ["csv", "images"])
def test_a_path_from_a_linked_folder_leads_to_the_file(tmp_path, linked):
    real = tmp_path / "deep" / "er" / linked
    real.mkdir(parents=True)
    try:
        (tmp_path / linked).symlink_to(real)
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    for name in ("csv", "images"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "images" / "a.jpg").touch()
    relative = annotations.relative_path(tmp_path / "images" / "a.jpg", tmp_path / "csv")
    assert os.path.exists(os.path.join(tmp_path / "csv", relative))  # noqa: PTH110, PTH118 - pathlib hides nothing here
    assert annotations.relative_path(tmp_path / "images" / "a.jpg", tmp_path) == "images/a.jpg"
