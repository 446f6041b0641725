#!/usr/bin/env python3
"""Whether every constrained answer parses and validates, as Python's jsonschema sees it.

    check_generations.py GENERATE_RECORDS TARGET DRAFT SCHEMAS.jsonl... [--json OUT]

20 answers; SPECDEC_TEST_FULL=1: 1000 over all schemas but those of which the grammar lists something as left to a
validator; these are counted. An answer that max_tokens cut off is counted and no more; of a
member that stands twice the last counts, as JSON readers have it. Exit code 77: the model or jsonschema is not here.
"""
import argparse
import collections
import json
import os
import subprocess
import sys

SKIPPED = 77

try:
    import jsonschema
except ImportError:
    print("skipped: Python's jsonschema is not installed")
    sys.exit(SKIPPED)


def problem(schema, text):
    """Why the text is no valid instance; None: it is one."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    error = jsonschema.exceptions.best_match(
        validator(schema, format_checker=jsonschema.FormatChecker()).iter_errors(value))
    return error and error.message


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("generate_records", "target", "draft"):
        parser.add_argument(name)
    parser.add_argument("schemas", nargs="+")
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.target):
        print(f"skipped: {arguments.target} is not here")
        return SKIPPED

    full = os.environ.get("SPECDEC_TEST_FULL") == "1"
    schemas = []
    for path in arguments.schemas:
        with open(path, encoding="utf-8") as file:
            schemas += [json.loads(line)["schema"] for line in file]
    command = [arguments.generate_records, arguments.target, arguments.draft, "1000" if full else "20", *arguments.schemas]
    reasons = collections.Counter()
    complete = collections.Counter()  # by schema
    bad = []
    left_out = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            answer = json.loads(line)
            if "unenforced" in answer:
                left_out.append(answer)
                continue
            reasons[answer["finish_reason"]] += 1
            if answer["finish_reason"] == "length":
                continue
            complete[answer["schema"]] += 1
            why = problem(schemas[answer["schema"]], answer["text"])
            if why:
                bad.append({"schema": answer["schema"], "text": answer["text"], "why": why})
                print("invalid:", json.dumps(bad[-1]))
    figures = {
        "answers": sum(reasons.values()),
        "finish_reasons": dict(reasons),
        "complete": sum(complete.values()),
        "schemas": len(complete),
        "schemas_left_out": len(left_out),
        "invalid": len(bad),
    }
    print(json.dumps(figures))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures | {"invalid_answers": bad, "left_out": left_out}, file, indent=2)
            file.write("\n")
    enough = (1000, 100) if full else (20, 10)
    return 0 if (process.returncode == 0 and not bad and set(reasons) <= {"grammar", "eos", "length"} and
                 figures["complete"] >= enough[0] and figures["schemas"] >= enough[1]) else 1


if __name__ == "__main__":
    sys.exit(main())
