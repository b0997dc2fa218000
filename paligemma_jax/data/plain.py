"""What TFDS, `datasets` and `tf.train.Example`s give as plain values.

Pictures stay the bytes of a file or its path, class numbers become names, times texts.
"""

import dataclasses
import datetime
from typing import Any

_TIMES = ("timestamp", "date", "time", "duration")  # types of `datasets` that it makes of texts


def undecoded_tfds(feature):
  """TFDS's decoders that leave all pictures of a feature as they are stored; None: there are none."""
  import tensorflow_datasets as tfds

  class Encoded(tfds.decode.SkipDecoding):
    def decode_batch_example_np(self, example):  # pictures in sequences
      return example

  if isinstance(feature, tfds.features.Image):
    return Encoded()
  inner = getattr(feature, "feature", feature)  # of a sequence
  if isinstance(inner, tfds.features.FeaturesDict):
    found = {k: undecoded_tfds(f) for k, f in inner.items()}
    return {k: f for k, f in found.items() if f is not None} or None
  return None if inner is feature else undecoded_tfds(inner)


def tfds_value(value: Any, feature: Any) -> Any:
  """A value as TFDS's `as_data_source` gives it -> plain; class numbers become names."""
  inner = getattr(feature, "feature", feature)
  if isinstance(value, dict):
    return {k: tfds_value(v, inner[k]) for k, v in value.items()}
  if hasattr(inner, "int2str"):
    several = isinstance(value, list) or getattr(value, "ndim", 0)
    return [inner.int2str(int(v)) for v in value] if several else inner.int2str(int(value))
  return _plain_value(value, type(inner).__name__ == "Image")


def _plain_value(value: Any, is_picture: bool) -> Any:
  if isinstance(value, list):
    return [_plain_value(v, is_picture) for v in value]
  if isinstance(value, bytes):
    return value if is_picture else value.decode()
  if hasattr(value, "tolist"):  # numpy's arrays and numbers
    return _plain_value(value.tolist(), is_picture)
  return value


def undecoded_hf(feature: Any, picture: type) -> Any:
  """A feature of `datasets` with its pictures, of the type `picture`, left as they are stored."""
  if isinstance(feature, picture):
    return picture(decode=False)
  if isinstance(feature, dict):
    return {k: undecoded_hf(f, picture) for k, f in feature.items()}
  if isinstance(feature, list):
    return [undecoded_hf(f, picture) for f in feature]
  if hasattr(feature, "feature"):  # a list, of a fixed length or not
    return dataclasses.replace(feature, feature=undecoded_hf(feature.feature, picture))
  return feature


def hf_times(feature: Any, path: str = "") -> dict[str, str]:
  """Paths of the times in a feature of `datasets`, "objects/label" -> their type.

  Lists add nothing to a path: ["2024-01-31"] in a column "when" is "when".
  """
  inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
  if inner is not None:
    return hf_times(inner, path)
  if isinstance(feature, dict):
    below = [hf_times(f, f"{path}/{key}" if path else key) for key, f in feature.items()]
    return {p: kind for found in below for p, kind in found.items()}
  kind = str(getattr(feature, "dtype", ""))
  return {path: kind} if kind.startswith(_TIMES) else {}


def hf_value(value: Any, feature: Any) -> Any:
  """A value in a row of `datasets` -> plain: pictures become bytes or paths, classes names."""
  if value is None or type(feature).__name__ == "Json":  # decoded already
    return value
  if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
    return str(value)
  inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
  if isinstance(value, list):
    return [hf_value(v, inner) for v in value]
  if isinstance(value, dict) and _is_picture(value):  # with its type or without
    return value["bytes"] if value["bytes"] is not None else value["path"]
  if isinstance(value, dict):
    types = inner if isinstance(inner, dict) else feature
    one = {k: types[k] if types is feature else [types[k]] for k in value}
    return {k: hf_value(v, one[k]) for k, v in value.items()}
  if not hasattr(feature, "int2str"):
    return value
  return None if value == -1 else feature.int2str(value)  # -1: of a test split, without a class


def _is_picture(value: dict) -> bool:
  return isinstance(value.get("bytes"), bytes) or value.keys() == {"bytes", "path"}


def example_values(data: bytes, pictures: set[str]) -> dict[str, Any]:
  """The features of a serialised `tf.train.Example`; those named in `pictures` stay bytes."""
  from tensorflow_datasets.proto import tf_example_pb2

  found = {}
  for name, feature in tf_example_pb2.Example.FromString(data).features.feature.items():
    values = list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)
    if name not in pictures:
      values = [v.decode() if isinstance(v, bytes) else v for v in values]
    found[name] = values[0] if len(values) == 1 else values
  return found
