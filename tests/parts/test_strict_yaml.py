import random

import pytest

from diffusion_framework.parts import BadPart, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("012", 12),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("{a: [1, {b: null}]}", {"a": [1, {"b": None}]}),
        ("{1: 2, no: 3}", {"1": 2, "no": 3}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = read_yaml(text, "x")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: [*a, *a]",
        "[" * 5000,
        "{a: " * 3000,
        "a: 1\na: 2",
        "x: !!python/name:os.system",
        "!!python/object/apply:os.system ['touch x']",
        "x: !!binary aGk=",
        "x: !!set {a}",
        "? [a]\n: 1",
        "a: [1",
        "\x00",
        "a: 1\n---\nb: 2",
        "<<: {a: 1}\nx: !mine 3",
        b"\xff\xfe\xff",
    ],
)
def test_yaml_beyond_plain_data_is_refused_in_one_line(text):
    with pytest.raises(
        BadPart, match="config: expected plain YAML, got an error .* Fix: "
    ) as error:
        read_yaml(text, "config")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


WORDS = [
    "no",
    "1e5",
    "1e-4",
    "012",
    "1:30",
    "~",
    "null",
    "",
    " a",
    "a: b",
    "#x",
    "true",
    ".5",
    "-.inf",
    "0x1",
    "x\ny",
    "é",
]


@pytest.mark.parametrize("flow", [False, True])
def test_written_yaml_reads_back_as_the_same_data(flow):
    chance = random.Random(0)
    shared = [1, 2]
    for _ in range(300):
        words = [
            "".join(chance.choices("01.eE-+:~ nofx'\"", k=chance.randrange(1, 6))) for _ in range(5)
        ]
        data = {
            "words": [*words, *WORDS],
            "numbers": [1, -2, 1e-9, 1e22, 0.1, float("inf")],
            "none": None,
            "b": [True],
        }
        data |= dict.fromkeys((*words, *WORDS), shared)
        again = read_yaml(write_yaml(data, flow), "x")
        assert again == data and list(map(type, again["numbers"])) == list(
            map(type, data["numbers"])
        )
