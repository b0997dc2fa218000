#!/usr/bin/env bash
# Hugging Face datasets 5.2.0 turns texts of a JSONL file into datetimes when every one of a column looks
# like a date, though JSON has no dates and the file says that they are strings.
#
# The answers of a document set ("what is the date of the receipt?") are then no texts any more: printed,
# "2024-05-01" is "2024-05-01 00:00:00". One answer that is no date, anywhere in the file, and all stay texts.
# So a small sample of a data set and the whole of it have columns of different types.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1
cd "$tmp"
HF_HOME="$tmp/hf" HF_HUB_OFFLINE=1 venv/bin/python - 2>/dev/null <<'PY'
import json

import datasets

print("datasets", datasets.__version__)


def column(name, answers):
  with open(name, "w") as f:
    f.writelines(json.dumps({"suffix": answer}) + "\n" for answer in answers)
  data = datasets.load_dataset("json", data_files=name, split="train")
  print(answers, "->", data.features["suffix"], [str(row["suffix"]) for row in data])
  return data.features["suffix"].dtype, [str(row["suffix"]) for row in data]


dates = column("dates.jsonl", ["2024-05-01", "2023-01-31"])
mixed = column("mixed.jsonl", ["2024-05-01", "2023-01-31", "unreadable"])
assert dates == ("timestamp[s]", ["2024-05-01 00:00:00", "2023-01-31 00:00:00"])
assert mixed == ("string", ["2024-05-01", "2023-01-31", "unreadable"])
PY
