#!/usr/bin/env bash
# The same picture with transparent pixels is another picture for PaliGemma's image processor in transformers 4
# and 5: 4.57.3 drops the alpha channel (the hidden colours appear), 5.24.0 lays the picture on white.
#
# Both with do_convert_rgb=True and the same Pillow; nothing is logged.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cat >"$tmp/look.py" <<'PY'
import sys

import numpy as np
import transformers
from PIL import Image

pixels = np.full((8, 8, 4), (200, 10, 10, 0), np.uint8)  # dark red, and fully transparent
kind = "SiglipImageProcessor" + "Pil" * transformers.__version__.startswith("5")  # the one without torch
processor = getattr(transformers, kind)(size={"height": 8, "width": 8})
picture = Image.fromarray(pixels, "RGBA")
values = processor(images=picture, do_convert_rgb=True, return_tensors="np")["pixel_values"]
seen = ((values[0, :, 0, 0] + 1) * 127.5).round().astype(int).tolist()
print("transformers", transformers.__version__, "sees", seen)
assert seen == [int(x) for x in sys.argv[1:]], "the behaviour has changed"
PY
see() {
  python3 -m venv "$tmp/$1"
  "$tmp/$1/bin/pip" install -q "transformers==$1" pillow==12.3.0
  (cd "$tmp" && "$tmp/$1/bin/python" look.py "${@:2}" 2>log || { cat log; exit 1; })
}
see 4.57.3 200 10 10
see 5.24.0 255 255 255
