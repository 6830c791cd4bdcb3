"""Small real wheels, and catalogue entries that point at them."""

import hashlib
import zipfile

from iglens.model.loading.catalogue import EmbeddedModel, Probe

PARTS = (b"first half, ", b"second half")


def write_wheel(folder, name, files):
    stem = name.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return path


def write_wheels(folder):
    """The two wheels of `fake_model`; importing either would fail loudly."""
    folder.mkdir(parents=True, exist_ok=True)
    loud = b"raise SystemExit('imported')"
    return [
        write_wheel(
            folder,
            f"iglens-fake-part{i}",
            {f"fake{i}/data.part{i}": part, f"fake{i}/__init__.py": loud},
        )
        for i, part in enumerate(PARTS)
    ]


def fake_model(**changes):
    return EmbeddedModel(
        **{
            "name": "fake",
            "title": "Fake",
            "licence": "MIT",
            "wheels": ("iglens-fake-part0==1.0", "iglens-fake-part1==1.0"),
            "files": ("fake0/data.part0", "fake1/data.part1"),
            "sha256": hashlib.sha256(b"".join(PARTS)).hexdigest(),
            "note": "made up",
            "probe": Probe("a", "b", 0.5),
            "download_bytes": 1000,
            "disk_bytes": 0,
        }
        | changes
    )


def write_download(model, folder, progress):
    write_wheels(folder)


def copy_convert(model, gguf, folder, progress):
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
