"""Bills of materials, held against CycloneDX's own schema of the version that they name.

Usage: bills.py FOLDER
"""

import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main() -> None:
    """Look at every bill of a folder; all that is wrong is said."""
    bills = sorted(Path(sys.argv[1]).glob("*.cdx.json"))
    if not bills:
        sys.exit(f"{sys.argv[1]}: no bills of materials")
    wrong = []
    for bill in bills:
        text = bill.read_text()
        version = SchemaVersion.from_version(json.loads(text)["specVersion"])
        error = JsonStrictValidator(version).validate_str(text)
        if error is not None:
            wrong.append(f"{bill.name}: {error}")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(bills)} bills of materials are as CycloneDX wants them")


main()
