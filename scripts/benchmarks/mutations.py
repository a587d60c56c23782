"""Random changes of plain data and bytes, as in hostile or damaged files."""

import copy
import math

COMMAND = {"class_path": "os.system", "init_args": {"command": "touch executed"}}
STRANGE = [
    COMMAND,
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "posix.system",
    "torch.nn.Linear",
    "torch.load",
    "this.x",
    "diffusion_framework.parts.search.import_module",
    "diffusion_framework.data.os.system",
    "",
    "..",
    "a" * 5000,
    "__class__",
    "__main__.Net",
    "DDIM",
    "UNet",
    None,
    True,
    -1,
    0,
    10**9,
    10**400,
    1e308,
    math.nan,
    math.inf,
    [],
    {},
    [[[]]],
    {"class_path": ["x"]},
    {"class_path": {}},
    {"class_path": "DDIM", "init_args": []},
    {"class_path": None},
    {"class_path": "DDIM", "init_args": "x"},
    "\ud800",
    "\0",
    {"": 1},
    ["x"] * 1000,
    "../../etc/passwd",
    "-1",
    "1e9",
]
NAMES = [
    "x",
    "eta",
    "class_path",
    "init_args",
    "self",
    "__init__",
    "args",
    "kwargs",
    "options",
    "model",
    "device",
]
PIECES = [
    b"&a ",
    b"*a",
    b"!!python/object/apply:os.system ['touch executed']",
    b"{",
    b"[",
    b": ",
    b"\n- ",
    b"<<: ",
    b"? ",
    b"\x00",
    b"\xff",
    b"!!binary ",
    b"!!set ",
    b"2001-01-01",
    b"!x ",
    b"}",
    b'"',
    b"1e999",
    b"NaN",
]


def _paths(tree, path=()):
    if path:
        yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from _paths(tree[key], (*path, key))
    elif isinstance(tree, list):
        for i in range(len(tree)):
            yield from _paths(tree[i], (*path, i))


def changed_tree(tree, random, others=()):
    """Returns a copy of nested dictionaries and lists with one to four changes."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        paths = list(_paths(tree))
        if not paths:
            return random.choice(STRANGE)
        *above, last = random.choice(paths)
        node = tree
        for key in above:
            node = node[key]
        kind = random.random()
        if kind < 0.15:
            del node[last]
        elif kind < 0.3 and isinstance(node, dict):
            node[random.choice(NAMES)] = copy.deepcopy(random.choice(STRANGE))
        elif kind < 0.4 and others:
            node[last] = copy.deepcopy(random.choice(others))
        else:
            node[last] = copy.deepcopy(random.choice(STRANGE))
    return tree


def changed_bytes(data, random):
    """Returns the bytes with one to five changes: bytes overwritten, deleted or inserted."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5])):
        if not data:
            break
        at, kind = random.randrange(len(data)), random.random()
        if kind < 0.5:
            data[at] = random.randrange(256)
        elif kind < 0.75:
            del data[at : at + random.randrange(1, 20)]
        else:
            data[at:at] = random.choice(PIECES)
    return bytes(data)
