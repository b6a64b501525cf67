"""Files of CVAT, LabelMe, VIA and VoTT as these tools write them, everything that can be wrong, and kinds not read."""

import contextlib
import copy
import json
import random

import pytest
from format_files import EMPTY, actions, draw, rows, save
from test_formats_fuzz import check, mutated

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import format_of, guess, read

BOX = (5, 6, 20, 25)  # in an image of 40 x 30

# as CVAT 2 exports a task; coordinates have two decimals
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>faces</name>
      <size>2</size>
      <mode>annotation</mode>
      <labels>
        <label>
          <name>mask</name>
          <color>#fa3253</color>
          <type>any</type>
          <attributes>
          </attributes>
        </label>
      </labels>
      <original_size>
        <width>40</width>
        <height>30</height>
      </original_size>
    </task>
    <dumped>2024-01-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="b.jpg" width="40" height="30">
  </image>
  <image id="1" name="a.jpg" width="40" height="30">
    <box label="mask" source="manual" occluded="0" xtl="5.00" ytl="6.00" xbr="20.00" ybr="25.00" z_order="0">
      <attribute name="chin">covered</attribute>
    </box>
    <box label=" no mask " source="manual" occluded="1" xtl="1.25" ytl="2.50" xbr="30.00" ybr="29.00" z_order="0">
    </box>
    <tag label="indoors" source="manual">
    </tag>
  </image>
</annotations>
"""

# as LabelMe 5.5 saves an image; the second rectangle was drawn from the lower right to the upper left
LABELME = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {
            "label": "mask",
            "points": [[5.0, 6.0], [20.0, 25.0]],
            "group_id": None,
            "description": "",
            "shape_type": "rectangle",
            "flags": {},
            "mask": None,
        },
        {
            "label": " no mask ",
            "points": [[30.0, 29.0], [1.25, 2.5]],
            "group_id": None,
            "description": "",
            "shape_type": "rectangle",
            "flags": {},
            "mask": None,
        },
    ],
    "imagePath": "a.jpg",
    "imageData": None,
    "imageHeight": 30,
    "imageWidth": 40,
}


def region(name: str, **shape) -> dict:
    sides = {"name": "rect", "x": 5, "y": 6, "width": 15, "height": 19} | shape
    return {"shape_attributes": sides, "region_attributes": {"class": name}}


# as VIA 2.0 saves a project
VIA = {
    "_via_settings": {"ui": {}, "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""}, "project": {}},
    "_via_img_metadata": {
        "a.jpg793": {
            "filename": "a.jpg",
            "size": 793,
            "regions": [region("mask"), region(" no mask ", x=1.25, y=2.5, width=28.75, height=26.5)],
            "file_attributes": {},
        },
        "b.jpg793": {"filename": "b.jpg", "size": 793, "regions": [], "file_attributes": {}},
    },
    "_via_attributes": {"region": {"class": {"type": "text", "description": "", "default_value": ""}}, "file": {}},
    "_via_data_format_version": "2.0.10",
    "_via_image_id_list": ["a.jpg793", "b.jpg793"],
}


def vott_region(tag: str, left, top, width, height) -> dict:
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return {
        "id": "jYe6jkMKE",
        "type": "RECTANGLE",
        "tags": [tag],
        "boundingBox": {"height": height, "width": width, "left": left, "top": top},
        "points": [{"x": x, "y": y} for x, y in corners],
    }


def vott_asset(name: str, state: int, *regions: dict) -> dict:
    asset = {
        "format": "jpg",
        "id": "9ae1b3d4f5",
        "name": name,
        "path": f"file:C:/Users/me/faces/{name}",
        "size": {"width": 40, "height": 30},
        "state": state,
        "type": 1,
    }
    return {"asset": asset, "regions": list(regions), "version": "2.2.0"}


# as VoTT 2.2 exports a project
VOTT = {
    "name": "faces",
    "securityToken": "faces Token",
    "videoSettings": {"frameExtractionRate": 15},
    "tags": [{"name": "mask", "color": "#5db300"}],
    "id": "s0bPcLXnX",
    "activeLearningSettings": {"autoDetect": False, "predictTag": True, "modelPathType": "coco"},
    "version": "2.2.0",
    "lastVisitedAssetId": "9ae1b3d4f5",
    "assets": {
        "9ae1b3d4f5": vott_asset(
            "a.jpg", 2, vott_region("mask", 5, 6, 15, 19), vott_region(" no mask ", 1.25, 2.5, 28.75, 26.5)
        ),
        "77cd8d21aa": vott_asset("b.jpg", 1),
    },
}
VOTT_CSV = """"image","xmin","ymin","xmax","ymax","label"
"a.jpg",5,6,20,25,"mask"
"a.jpg",1.25,2.5,30,29," no mask "
"""

GOOD = {"cvat": CVAT, "labelme": LABELME, "via": VIA, "vott": VOTT, "vott csv": VOTT_CSV}


def names(kind: str) -> tuple[str, str]:
    """The format, and a file name."""
    return kind.split()[0], {"cvat": "annotations.xml", "vott csv": "faces-export.csv"}.get(kind, "export.json")


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "b.jpg")
    return tmp_path


def read_file(folder, kind, content, **options):
    name, file_name = names(kind)
    save(folder / file_name, content)
    return read(name, [folder], folder, **options)


# --- What the tools write ---


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_of_the_tool(folder, kind):
    table, problems = read_file(folder, kind, GOOD[kind])
    found = [("a.jpg", *BOX, "mask"), ("a.jpg", 1.25, 2.5, 30, 29, "no mask")]
    lists_empty = kind in ("cvat", "via", "vott")
    assert rows(table) == [*found, *[("b.jpg", *EMPTY)] * lists_empty]
    assert actions(problems) == ["note"] * (kind != "vott")  # b.jpg is not annotated, or nobody may have opened it
    if kind in ("cvat", "via"):
        message = "1 image(s) without a shape count as images without objects, such as 'b.jpg'; "
        assert problems[0].message == f"{message}{kind.upper()} does not say whether anybody opened them"
    assert guess([folder]) == names(kind)[0]


def test_one_asset_of_vott_and_one_without_annotation(folder):
    save(folder / "9ae1b3d4f5-asset.json", VOTT["assets"]["9ae1b3d4f5"])
    save(folder / "77cd8d21aa-asset.json", vott_asset("b.jpg", 0))
    assert guess([folder]) == "vott"
    table, problems = read("vott", [folder], folder)
    assert [row[0] for row in rows(table)] == ["a.jpg"] * 2  # b.jpg is none without faces
    assert "1 asset(s) that nobody opened in VoTT count as images without annotation" in str(problems[0])
    assert "1 image(s) without VoTT" in str(problems[1])
    table, _ = read("vott", [folder], folder, with_unannotated=True)
    assert rows(table)[2:] == [("b.jpg", *EMPTY)]


def test_names_that_vott_took_from_a_url(folder):
    draw(folder / "c d.jpg")
    table, _ = read_file(folder, "vott", vott_asset("c%20d.jpg", 2, vott_region("mask", 5, 6, 15, 19)))
    assert rows(table)[0] == ("c d.jpg", *BOX, "mask")
    draw(folder / "c%20d.jpg")  # VoTT's export copies it to that name
    table, _ = read("vott", [folder], folder)
    assert rows(table)[0] == ("c%20d.jpg", *BOX, "mask")
    for name in ("%" * 500, "%\0", "%\ud800", "%2e%2e%2foutside.jpg"):  # nothing foreign, nor another folder
        with pytest.raises(AnnotationError, match="could be used"):
            read_file(folder, "vott", vott_asset(name, 2, vott_region("mask", 5, 6, 15, 19)))


def test_exports_of_via_1_and_2(folder):
    exported = VIA["_via_img_metadata"]
    table, _ = read_file(folder, "via", exported)
    assert guess([folder]) == "via" and len(table) == 3
    older = copy.deepcopy(exported)
    for record in older.values():  # via.js of VIA 1.0 numbers the regions in an object
        record |= {"fileref": "", "base64_img_data": ""}
        record["regions"] = {str(number): item for number, item in enumerate(record["regions"])}
    again, _ = read_file(folder, "via", older)
    assert guess([folder]) == "via" and rows(again) == rows(table)


def test_a_ticked_box_of_via_is_the_class(folder):
    content = copy.deepcopy(VIA)
    regions = content["_via_img_metadata"]["a.jpg793"]["regions"]
    regions[0]["region_attributes"] = {"class": {"mask": True, "no mask": False}, "note": ""}
    regions[1]["region_attributes"] = {"class": {"mask": True, "no mask": True}}
    table, problems = read_file(folder, "via", content)
    assert rows(table)[0] == ("a.jpg", *BOX, "mask")
    message = "found 'class' mask, no mask in 'region_attributes', expected one class as text"
    assert problems[1].message.startswith(f"{message}; the image keeps its other boxes")


def test_four_corners_of_labelme(folder):
    """As X-AnyLabeling writes them; four that are no upright box are refused."""
    content = copy.deepcopy(LABELME)
    content["shapes"][0]["points"] = [[5, 6], [20, 6], [20, 25], [5, 25]]
    content["shapes"][1]["points"] = [[5, 6], [20, 7], [20, 25], [5, 25]]
    table, problems = read_file(folder, "labelme", content)
    assert rows(table) == [("a.jpg", *BOX, "mask")]
    assert "found 4 point(s) (5.0, 6.0), (20.0, 7.0)," in problems[0].message


def test_images_where_the_file_says(tmp_path):
    """Relative to the file; of a path of another machine, the last part."""
    draw(tmp_path / "photos" / "a.jpg")
    for path in (r"..\photos\a.jpg", "../photos/a.jpg"):
        save(tmp_path / "labels" / "a.json", LABELME | {"imagePath": path})
        table, _ = read("labelme", [tmp_path], tmp_path)
        assert rows(table)[0] == ("photos/a.jpg", *BOX, "mask")
    for path in (r"C:\Users\me\a.jpg", "file:///C:/Users/me/a.jpg", "https://here.org/faces/a.jpg", "/home/me/a.jpg"):
        save(tmp_path / "labels" / "a.json", LABELME | {"imagePath": path})
        table, _ = read("labelme", [tmp_path / "labels"], tmp_path, image_folder=tmp_path / "photos")
        assert rows(table)[0] == ("photos/a.jpg", *BOX, "mask")


def test_images_beside_as_cvat_packs_them(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    save(tmp_path / "annotations.xml", CVAT)
    for source in (tmp_path, tmp_path / "annotations.xml"):
        table, problems = read("cvat", [source], tmp_path)
        assert [row[0] for row in rows(table)] == ["images/a.jpg"] * 2 + ["images/b.jpg"]
        assert actions(problems) == ["note"]


# --- What is not understood ---


def in_cvat(element: str, before: str = "    <tag") -> str:
    return CVAT.replace(before, f"{element}\n{before}", 1)


def in_labelme(**changed) -> dict:
    return LABELME | {"shapes": [*LABELME["shapes"], LABELME["shapes"][0] | changed]}


def in_via(item) -> dict:
    content = copy.deepcopy(VIA)
    content["_via_img_metadata"]["a.jpg793"]["regions"].append(item)
    return content


def in_vott(**changed) -> dict:
    content = copy.deepcopy(VOTT)
    content["assets"]["9ae1b3d4f5"]["regions"].append(vott_region("mask", 5, 6, 15, 19) | changed)
    return content


POINTS = [{"x": 1, "y": 1}, {"x": 9, "y": 9}]
BAD_OBJECTS = {
    "cvat polygon": in_cvat('<polygon label="mask" points="1.00,2.00;3.00,4.00;5.00,1.00"></polygon>'),
    "cvat rotated": in_cvat('<box label="mask" xtl="5" ytl="6" xbr="20" ybr="25" rotation="30.50"/>'),
    "cvat no edge": in_cvat('<box label="mask" xtl="5" ytl="6" xbr="20"/>'),
    "cvat nan": in_cvat('<box label="mask" xtl="5" ytl="6" xbr="20" ybr="nan"/>'),
    "cvat digits": in_cvat('<box label="mask" xtl="5" ytl="6" xbr="2_0" ybr="25"/>'),
    "cvat no label": in_cvat('<box xtl="5" ytl="6" xbr="20" ybr="25"/>'),
    "cvat box in a box": in_cvat(
        '<box label="x" xtl="7" ytl="8" xbr="9" ybr="10"/>', before='      <attribute name="c'
    ),
    "cvat box deeper": in_cvat('<objects><box label="mask" xtl="5" ytl="6" xbr="20" ybr="25"/></objects>'),
    "labelme polygon": in_labelme(shape_type="polygon", points=[[1, 2], [3, 4], [5, 1]]),
    "labelme circle": in_labelme(shape_type="circle"),
    "labelme label": in_labelme(label=3),
    "labelme one point": in_labelme(points=[[1, 2]]),
    "labelme three values": in_labelme(points=[[1, 2, 3], [4, 5, 6]]),
    "labelme text": in_labelme(points=[[1, "2"], [4, 5]]),
    "labelme huge": in_labelme(points=[[1, 10**400], [4, 5]]),
    "labelme empty": in_labelme(points=[[1, 2], [1, 5]]),
    "via polygon": in_via({"shape_attributes": {"name": "polygon", "all_points_x": [1, 2]}, "region_attributes": {}}),
    "via no class": in_via(region("")),
    "via no attributes": in_via(region("mask") | {"region_attributes": {}}),
    "via number": in_via(region("mask") | {"region_attributes": {"class": 3}}),
    "via width": in_via(region("mask", width=-15)),
    "via text": in_via(region("mask", x="5")),
    "via list": in_via([]),
    "vott polygon": in_vott(type="POLYGON"),
    "vott two tags": in_vott(tags=["mask", "child"]),
    "vott no tag": in_vott(tags=[]),
    "vott tag": in_vott(tags=[None]),
    "vott no box": in_vott(boundingBox=None),
    "vott width": in_vott(boundingBox={"left": 5, "top": 6, "width": 0, "height": 19}),
    "vott two boxes": in_vott(points=POINTS),
    "vott points": in_vott(points=[3]),
    "vott csv two tags": VOTT_CSV + '"a.jpg",2,2,9,9,"mask"\n"a.jpg",2,2,9,9,"child"\n',
    "vott csv nan": VOTT_CSV + '"a.jpg",2,2,nan,9,"mask"\n',
    "vott csv outside": VOTT_CSV + '"a.jpg",2,2,900,9,"mask"\n',
}
MESSAGES = {
    "cvat polygon": "line 34 image 'a.jpg': found <polygon>, expected <box>; only upright boxes are read",
    "cvat rotated": "line 34 image 'a.jpg': the box is rotated by 30.50 degrees; only upright boxes are read",
    "cvat no edge": "found xtl '5', ytl '6', xbr '20', ybr ''; expected four numbers",
    "cvat nan": "ybr 'nan'; expected four numbers",
    "cvat digits": "xbr '2_0', ybr '25'; expected four numbers",
    "cvat no label": "object without a class name",
    "cvat box in a box": "line 30 image 'a.jpg': found <box/box>, expected <box>",
    "cvat box deeper": "line 34 image 'a.jpg': found <objects>, expected <box>",
    "labelme polygon": 'shapes[2]: \'shape_type\' is "polygon", expected "rectangle"; only boxes are read',
    "labelme label": "'label' is 3, expected a text",
    "labelme one point": "found 1 point(s) (1.0, 2.0); expected two opposite corners",
    "labelme empty": "box (1, 2, 1, 5) is empty or inverted",
    "via polygon": "'a.jpg793' regions[2]: the region is a polygon, expected a rect; only boxes are read",
    "via no class": "found none in 'region_attributes', expected one class as text",
    "via number": "found 'class' 3 in 'region_attributes', expected one class as text",
    "via width": "found x 5, y 6, width -15, height 19; expected numbers, width and height above 0",
    "via list": "found a list of 0, expected an object {...} with 'shape_attributes'",
    "vott polygon": "asset '9ae1b3d4f5' regions[2]: the region is a POLYGON, expected a RECTANGLE",
    "vott two tags": "found 2 tags (mask, child), expected one class",
    "vott tag": "'tag' is null, expected a text",
    "vott width": "found left 5, top 6, width 0, height 19; expected numbers",
    "vott two boxes": "'points' have x [1.0, 9.0], 'boundingBox' 5 to 20; draw the box anew",
    "vott points": "'points' have x [nan], 'boundingBox' 5 to 20; draw the box anew",
    "vott csv two tags": "line 4: found 2 tags (child, mask) on one box, expected one class",
    "vott csv nan": "line 4: found '2,2,nan,9', expected four numbers xmin,ymin,xmax,ymax",
    "vott csv outside": "box (2, 2, 900, 9) lies outside the image",
}


@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_bad_object_is_dropped_and_the_rest_is_kept(folder, case):
    kind = "vott csv" if case.startswith("vott csv") else case.split()[0]
    table, problems = read_file(folder, kind, BAD_OBJECTS[case])
    assert [row[:1] + row[5:] for row in rows(table) if row[5]] == [("a.jpg", "mask"), ("a.jpg", "no mask")]
    dropped = [str(problem) for problem in problems if problem.action == "dropped box"]
    assert dropped and MESSAGES.get(case, "expected") in dropped[0]


EMPTY_CVAT = CVAT.replace('name="b.jpg" width="40" height="30">', 'name="b.jpg" width="40" height="30">%s')
ONLY_BAD = {
    "cvat": EMPTY_CVAT % '<mask label="mask" rle="1,2" left="1" top="1" width="2" height="2"/>',
    "cvat tag": EMPTY_CVAT % '<tag label="mask"/>',
    "cvat unknown": EMPTY_CVAT % "<faces><face/></faces>",
    "labelme": LABELME | {"imagePath": "b.jpg", "shapes": [LABELME["shapes"][0] | {"shape_type": "mask"}]},
    "via": {"a": {"filename": "a.jpg", "regions": [region("mask")]}, "b": {"filename": "b.jpg", "regions": [{}]}},
    "vott": {"assets": {"b": vott_asset("b.jpg", 2, {"type": "POINT"}), "a": VOTT["assets"]["9ae1b3d4f5"]}},
}


@pytest.mark.parametrize("case", ONLY_BAD)
def test_an_image_with_nothing_but_unknown_shapes_is_left_out(folder, case):
    try:
        table, problems = read_file(folder, case.split()[0], ONLY_BAD[case], with_unannotated=True)
        assert "b.jpg" not in [row[0] for row in rows(table)]
        listed = "\n".join(map(str, problems))
    except AnnotationError as error:  # LabelMe's file is about this image alone
        assert case == "labelme"
        listed = str(error)
    assert "no box is left; the image is left out" in listed


BAD_RECORDS = {
    "cvat": (CVAT.replace('name="b.jpg" ', ""), "line 26", "found an <image> without a name, expected name=..."),
    "via": ({"x": {"regions": []}, **VIA["_via_img_metadata"]}, "'x'", "found no 'filename', expected a text"),
    "via regions": (
        VIA["_via_img_metadata"] | {"b": {"filename": "b.jpg", "regions": None}},
        "'b'",
        "'regions' is null, expected a list",
    ),
    "vott": (VOTT | {"assets": VOTT["assets"] | {"x": vott_asset("", 2)}}, "asset 'x'", "'name' is empty, expected a"),
    "vott frame": (
        VOTT | {"assets": VOTT["assets"] | {"x": {"asset": {"name": "v.mp4#t=5", "type": 3}, "regions": []}}},
        "asset 'x'",
        "'v.mp4#t=5' is a video or a frame of one; save the frame as an image",
    ),
    "vott project": (VOTT | {"assets": VOTT["assets"] | {"x": {"id": "x"}}}, "asset 'x'", "found no 'asset', expected"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_bad_record_is_reported_and_the_rest_is_kept(folder, case):
    content, where, message = BAD_RECORDS[case]
    kind = case.split()[0]
    table, problems = read_file(folder, kind, content)
    assert rows(table)[:2] == [("a.jpg", *BOX, "mask"), ("a.jpg", 1.25, 2.5, 30, 29, "no mask")]
    assert (problems[0].action, problems[0].where) == ("skipped file", f"{folder / names(kind)[1]} {where}")
    assert problems[0].message.startswith(message)


TRACK = '<track id="0" label="mask"><box frame="0" outside="0" xtl="5" ytl="6" xbr="20" ybr="25"></box></track>'
SECOND = {"class": "mask", "occluded": "yes"}
BAD_FILES = {
    "cvat damaged": (CVAT[:-20], "line 36: not well-formed XML"),
    "cvat line": (CVAT.replace("</box>", "</bax>", 1), "line 31: not well-formed XML (mismatched tag)"),
    "cvat entities": (CVAT.replace("<annot", '<!DOCTYPE a [<!ENTITY b "c">]><annot', 1), "XML entities and outside"),
    "cvat video": (
        CVAT.replace("  <image", f"  {TRACK}<image", 1),
        "line 26: found <track>, expected <image>; this is",
    ),
    "cvat deeper": (CVAT.replace("<version>1.1</version>", "<images/>"), "line 3: found <images>, expected <image>"),
    "cvat voc": ("<annotation></annotation>", "line 1: found <annotation>, expected CVAT's <annotations>"),
    "labelme damaged": (json.dumps(LABELME, indent=2)[:-30], "line 44: not JSON"),
    "labelme list": ([], "found a list of 0, expected an object {...}"),
    "labelme no image": ({"shapes": []}, "found no 'imagePath', expected a text"),
    "labelme no shapes": ({"imagePath": "a.jpg"}, "found no 'shapes', expected a list [...]"),
    "labelme shapes": (
        LABELME | {"shapes": LABELME["shapes"][0]},
        "'shapes' is an object with 7 member(s), expected a",
    ),
    "labelme NaN": (json.dumps(LABELME).replace("30.0", "NaN"), "found NaN, which JSON does not have"),
    "via two attributes": (
        in_via(region("mask") | {"region_attributes": SECOND}),
        "regions have 2 attributes, and nothing says which is the class: 'class' (mask, no mask); 'occluded' (yes)",
    ),
    "via metadata": ({"_via_img_metadata": []}, "'_via_img_metadata' is a list of 0, expected an object {...}"),
    "vott neither": ({"name": "faces"}, "found no 'assets', expected an object {...} of that name"),
    "vott csv header": ('"image","label"\n', "line 1: found 'image,label', expected image,xmin,ymin,xmax,ymax,label"),
    "vott csv short": (VOTT_CSV + '"a.jpg",3\n', "line 4: found 'a.jpg,3', expected image,xmin,ymin,xmax,ymax,label"),
    "vott csv quote": (VOTT_CSV + '"a.jpg\n', "line 4: not readable as CSV (unexpected end of data)"),
    "vott csv bytes": (VOTT_CSV.encode() + b'"\xe9.jpg",1,2,3,4,"x"\n', "not UTF-8 text (invalid continuation byte at"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_reported_and_the_rest_is_kept(folder, case):
    content, message = BAD_FILES[case]
    kind = "vott csv" if case.startswith("vott csv") else case.split()[0]
    name, file_name = names(kind)
    bad = save(folder / f"a{file_name}", content)
    table, problems = read_file(folder, kind, GOOD[kind])
    assert rows(table)[0] == ("a.jpg", *BOX, "mask")
    assert (problems[0].where, problems[0].action) == (str(bad), "skipped file")
    assert problems[0].message.startswith(message)
    with pytest.raises(AnnotationError, match="none of the .* could be used"):
        read(name, [bad], folder)  # and never an empty table


def test_nothing_to_read(tmp_path):
    for name, tool in (("cvat", "CVAT for images"), ("labelme", "LabelMe"), ("via", "VIA"), ("vott", "VoTT")):
        with pytest.raises(AnnotationError, match=f"no .* file below .*; expected .*{tool}"):
            read(name, [tmp_path], tmp_path)


@pytest.mark.parametrize("kind", GOOD)
def test_some_mutations(folder, kind):
    content = GOOD[kind] if isinstance(GOOD[kind], str) else json.dumps(GOOD[kind], indent=2)
    dice, came_through, reported = random.Random(22), 0, 0
    for number in range(100):
        try:
            damaged = mutated(content.encode(), dice)
            table, problems = read_file(folder, kind, damaged, with_unannotated=bool(number % 2))
            check(table)
            came_through += len(table) > 0
            reported += any(problem.action != "note" for problem in problems)
        except AnnotationError as error:
            reported += bool(str(error))
        with contextlib.suppress(AnnotationError):
            guess([folder / names(kind)[1]])
    assert came_through > 10 and reported > 10


# --- Kinds that are only known by name ---

KNOWN = {
    "video.xml": (f"<?xml version='1.0'?>\n<annotations><version>1.1</version>{TRACK}</annotations>", "CVAT's XML for"),
    "imglab.xml": ("<dataset><name/><images><image file='a.jpg'><box top='6'/></image></images></dataset>", "dlib's"),
    "mit.xml": (
        "<annotation><object><name>x</name><polygon><pt/></polygon></object></annotation>",
        "XML of MIT's Label",
    ),
    "studio.json": (
        [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": [{"original_width": 40}]}]}],
        "Label Studio's JSON; export as Pascal VOC or COCO",
    ),
    "a.jpg.json": ({"size": {}, "tags": [], "objects": [{"classTitle": "mask"}]}, "Supervisely's JSON; export as"),
    "via3.json": ({"project": {"pid": "__VIA_PROJECT_ID__"}, "metadata": {}}, "VIA 3's project; export as"),
    "vott1.json": (
        {"frames": {"a.jpg": []}, "framerate": "1", "inputTags": "mask"},
        "VoTT 1's JSON; open it in VoTT 2",
    ),
    "box.ndjson": ('{"data_row": {"id": "x"}}\n{"data_row": {}}\n', "Labelbox's JSON; export as"),
    "truth.manifest": ('{"source-ref": "s3://x/a.jpg"}\n', "a manifest of SageMaker Ground Truth; export as"),
    "datumaro.json": ({"dm_format_version": "1.0", "items": []}, "Datumaro's JSON; export as"),
    "bdd.json": ([{"name": "a.jpg", "labels": [{"box2d": {}}]}], "JSON of Scalabel or BDD100K; export as"),
    "super.json": ({"instances": [{"className": "mask", "pointLabels": {}}]}, "SuperAnnotate's JSON; export as"),
    "via.csv": ("#filename,file_size,file_attributes,region_count,region_id\n", "VIA's CSV; export as JSON"),
    "tf.csv": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,mask,5,6,20,25\n",
        "a CSV for TensorFlow's",
    ),
    "wider.txt": ("0--Parade/a.jpg\n1\n5 6 15 19 0 0 0 0 0 0 \n", "WIDER FACE's list of boxes; export as"),
    "ImageSets/Main/train.txt": (
        "a  1\nb -1\n",
        "a list of images of the Pascal VOC devkit; give its folder Annotations",
    ),
    "train.tfrecord": (b"\x00\x01", "a TFRecord; export as"),
    "faces.vott": ({"assets": {}}, "VoTT's project, which has no boxes; give the"),
    "faces.zip": (b"PK", "an archive; unpack it"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_kind_is_called_by_its_name(tmp_path, name):
    content, kind = KNOWN[name]
    path = save(tmp_path / name, json.dumps(content) if isinstance(content, (dict, list)) else content)
    for source in (path, tmp_path):
        with pytest.raises(AnnotationError) as error:
            guess([source])
        assert str(error.value).startswith(f"{path} is {kind}")


def test_what_is_read_is_no_kind_that_is_only_known(folder):
    for kind, content in GOOD.items():
        path = save(folder / names(kind)[1], content)
        assert format_of(path) == names(kind)[0]
    coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1, "attributes": {}}], "categories": []}
    assert format_of(save(folder / "coco.json", coco)) == "coco"
    assert format_of(save(folder / "c.json", [{"image": "a.jpg", "annotations": []}])) == "createml"
    save(folder / "faces.zip", b"PK")  # beside files that are read it does not matter
    save(folder / "train.txt", "a.jpg\n12\n")
    assert format_of(folder / "train.txt") == "yolo"


@pytest.mark.parametrize("content", ["3", "null", '"a"', "{", "[1", "\xff"])
def test_json_of_no_kind_at_all(tmp_path, content):
    path = save(tmp_path / "a.json", content)
    with pytest.raises(AnnotationError, match=f"{path}: .*expected|{path}: line 1: not JSON"):
        guess([path])
