"""One parser under libFuzzer: ``python -m tests.fuzz.guided PARSER [libFuzzer's options] CORPUS``. It never returns."""

import sys

import atheris

with atheris.instrument_imports(include=["comfy_gateway.core"]):
    from tests.fuzz.parsers import PARSERS


def main() -> None:
    """Fuzz until the options say that it is enough, or until something breaks."""
    parser = PARSERS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], parser)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
