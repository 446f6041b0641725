#!/usr/bin/env python3
"""Compares specdec-grammar with Python's jsonschema.

    compare_with_jsonschema.py SPECDEC_GRAMMAR FILE.jsonl [--samples N] [--limit N]

FILE.jsonl: a line {"name", "schema", ["tests"]} per schema, as MaskBench or tests/data/json_schema. Of every schema that
compiles, N random texts of its grammar must parse and be valid, and so must every instance of the file that it accepts.
Formats are checked as far as jsonschema checks them, but for "time", where it has draft 3's; texts with a number that a
double does not hold exactly are not judged, since Python rounds it. Prints a line per disagreement; exit status 1 if there is one.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile

import jsonschema


def validator_of(schema, draft):
    classes = {"4": jsonschema.Draft4Validator, "2020-12": jsonschema.Draft202012Validator}
    default = classes.get(draft, jsonschema.Draft202012Validator)
    cls = jsonschema.validators.validator_for(schema, default=default)
    checker = jsonschema.FormatChecker()
    checker.checkers = {name: check for name, check in checker.checkers.items() if name != "time"}
    return cls(schema, format_checker=checker)


def is_rounded(text):
    """Whether some number outside of strings has more than 15 digits."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    return any(len(re.sub(r"[eE].*|[-.]", "", number).strip("0")) > 15
               for number in re.findall(r"-?\d[\d.]*(?:[eE][-+]?\d+)?", bare))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("file")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--limit", type=int, default=0)
    args = parser.parse_args()
    compiled = refused = texts = wrong = unknown = 0
    for number, line in enumerate(open(args.file, encoding="utf-8")):
        if args.limit and number >= args.limit:
            break
        row = json.loads(line)
        if row.get("draft") == "4" and isinstance(row["schema"], dict):
            row["schema"].setdefault("$schema", "http://json-schema.org/draft-04/schema#")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(row["schema"], file)
            file.flush()
            run = subprocess.run([args.program, "sample", "--json-schema", file.name, "--count", str(args.samples),
                                  "--seed", str(number)], capture_output=True)
        if run.returncode != 0:
            refused += 1
            continue
        compiled += 1
        samples = [text for text in run.stdout.decode().split("\n")
                   if text and not text.startswith("not enforced: ")]
        for text in samples:
            texts += 1
            if is_rounded(text):
                unknown += 1
                continue
            try:
                value = json.loads(text)
                validator = validator_of(row["schema"], row.get("draft"))
                error = jsonschema.exceptions.best_match(validator.iter_errors(value))
            except json.JSONDecodeError as failure:
                error = failure
            except Exception:  # a schema or a reference that jsonschema cannot evaluate
                unknown += 1
                continue
            if error is not None:
                wrong += 1
                print(f"{row['name']}: {text[:300]}: {str(error)[:200]!r}")
    print(f"{compiled} schemas compiled, {refused} refused, {texts} texts, {unknown} not judged, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
