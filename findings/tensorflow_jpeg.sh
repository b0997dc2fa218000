#!/usr/bin/env bash
# TensorFlow 2.19.1 decodes a JPEG to other pixels than Pillow 12.3.0, and not by rounding alone: the
# default of tf.io.decode_jpeg is libjpeg's fast integer DCT, which makes red and blue darker by more than
# one grey level on average, and single pixels by up to 5.
#
# big_vision reads the pictures of PaliGemma with that default, transformers with Pillow: the same file is
# another input in each. dct_method="INTEGER_ACCURATE" gives Pillow's pixels exactly.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q tensorflow-cpu==2.19.1 pillow==12.3.0
cd "$tmp"
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 venv/bin/python - 2>/dev/null <<'PY'
import io

import numpy as np
import PIL
import tensorflow as tf
from PIL import Image

y, x = np.mgrid[0:240, 0:320]
picture = np.stack([0.8 * x, 1.1 * y, 0.5 * (x + y)], -1) % 256
picture += np.random.default_rng(0).normal(0, 20, picture.shape)
file = io.BytesIO()
Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
pillow = np.asarray(Image.open(file)).astype(int)

print("tensorflow", tf.__version__, "pillow", PIL.__version__)
seen = {}
for method in ("", "INTEGER_FAST", "INTEGER_ACCURATE"):
  difference = tf.io.decode_jpeg(file.getvalue(), dct_method=method).numpy().astype(int) - pillow
  seen[method] = abs(difference).max(), difference.mean((0, 1))
  print(f"dct_method={method!r}: at most {seen[method][0]}, mean of R, G, B", seen[method][1].round(2))
for method in ("", "INTEGER_FAST"):
  most, (red, green, blue) = seen[method]
  assert 3 <= most <= 6 and red < -0.8 and blue < -0.8 and abs(green) < 0.2
assert seen["INTEGER_ACCURATE"][0] == 0
PY
