"""Reads JSON texts with Python's own json, one a line, and prints what each says.

Usage: reader.py < texts. Prints for each line its canonical text (see src/canon.rs), or `!` where
the text is refused. An integer that no double holds is printed in decimal, so that it equals none.
"""

import json
import struct
import sys


def string(text: str) -> str:
    return "s" + text.encode("utf-16-be", "surrogatepass").hex()


def number(value: int | float) -> str:
    try:
        double = float(value)
    except OverflowError:
        return "too large"
    if isinstance(value, int) and int(double) != value:
        return f"integer {value}"
    # Minus zero is zero.
    return "d" + struct.pack(">d", double + 0.0).hex()


def canonical(value: object) -> str:
    match value:
        case None:
            return "n"
        case True:
            return "t"
        case False:
            return "f"
        case int() | float():
            return number(value)
        case str():
            return string(value)
        case list():
            return "[" + ",".join(map(canonical, value)) + "]"
        case dict():
            keys = sorted((string(key), key) for key in value)
            return "{" + ",".join(f"{text}:{canonical(value[key])}" for text, key in keys) + "}"
    raise TypeError(type(value))


def read(text: bytes) -> str:
    try:
        return canonical(json.loads(text))
    except (ValueError, RecursionError):
        return "!"


for line in sys.stdin.buffer:
    sys.stdout.write(read(line.removesuffix(b"\n")) + "\n")
sys.stdout.flush()
