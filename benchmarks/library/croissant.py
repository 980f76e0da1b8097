"""The manifest of an exported library: metadata in the format Croissant 1.0.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "croissant.json"
TYPES = {".csv": "text/csv", ".xz": "application/x-xz", ".md": "text/markdown"}
TYPES |= {".npz": "application/zip", ".py": "text/x-python"}
CROISSANT = "http://mlcommons.org/croissant/"
# Names that stand for themselves in Croissant's vocabulary.
TERMS = (
    "citeAs",
    "column",
    "equivalentProperty",
    "extract",
    "field",
    "fileObject",
    "fileProperty",
    "fileSet",
    "format",
    "includes",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": CROISSANT,
    "rai": f"{CROISSANT}RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in TERMS},
}


def manifest(
    folder: Path,
    files: Sequence[Path],
    tables: Mapping[str, Mapping[str, str]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Metadata of files in a folder.

    Parameters
    ----------
    folder
        The folder.
    files
        Its files, the manifest itself apart.
    tables
        Columns of its tables in CSV by name of the file, with their types of data in
        schema.org, such as ``Integer``.
    about
        Name, description, licence and the like, in the terms of schema.org.
    """
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": f"{CROISSANT}1.0",
        **about,
        "distribution": [_file(folder, path) for path in files],
        "recordSet": [_table(name, columns) for name, columns in tables.items()],
    }


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": TYPES.get(path.suffix, "application/octet-stream"),
        "sha256": sha256(path),
    }


def _table(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    table = name.removesuffix(".csv")
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table}/{column}",
                "name": column,
                "dataType": f"sc:{kind}",
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
            for column, kind in columns.items()
        ],
    }


def write_table(
    path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]
) -> None:
    """Write a table in CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
