"""What the axes of every parameter mean, by a regex over its slash-joined name."""

import re

# The first full match wins; every parameter must match. "layers" is the axis that is scanned over.
AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  ("img/embedding/kernel", (None, None, None, "embed")),
  ("img/pos_embedding", (None, "length", "embed")),
  (
    "img/Transformer/encoderblock/.*Attention_0/(query|key|value)/kernel",
    ("layers", "embed", "heads", "head_dim"),
  ),
  (
    "img/Transformer/encoderblock/.*Attention_0/(query|key|value)/bias",
    ("layers", "heads", "head_dim"),
  ),
  (
    "img/Transformer/encoderblock/.*Attention_0/out/kernel",
    ("layers", "heads", "head_dim", "embed"),
  ),
  ("img/Transformer/encoderblock/.*/Dense_0/kernel", ("layers", "embed", "mlp")),
  ("img/Transformer/encoderblock/.*/Dense_0/bias", ("layers", "mlp")),
  ("img/Transformer/encoderblock/.*/Dense_1/kernel", ("layers", "mlp", "embed")),
  ("img/Transformer/encoderblock/.*/(bias|scale)", ("layers", "embed")),
  ("img/head/kernel", ("embed", None)),
  ("img/.*(bias|scale)", ("embed",)),
  ("llm/embedder/input_embedding", ("vocab", "embed")),
  ("llm/layers/attn/q_einsum/w", ("layers", "heads", "embed", "head_dim")),
  ("llm/layers/attn/kv_einsum/w", ("layers", None, "kv_heads", "embed", "head_dim")),
  ("llm/layers/attn/attn_vec_einsum/w", ("layers", "heads", "head_dim", "embed")),
  ("llm/layers/mlp/gating_einsum", ("layers", None, "embed", "mlp")),
  ("llm/layers/mlp/linear", ("layers", "mlp", "embed")),
  ("llm/layers/.*/scale", ("layers", "embed")),
  ("llm/final_norm/scale", ("embed",)),
)


def logical_axes(name: str, ndim: int) -> tuple[str | None, ...]:
  """The logical axes of a parameter. `ndim` may be one more, for statistics stacked in front.

  Raises:
    ValueError: no entry of `AXES` matches; a new parameter needs one.
  """
  for pattern, axes in AXES:
    if re.fullmatch(pattern, name):
      if len(axes) != ndim:
        raise ValueError(f"{name} has {ndim} axes, param_axes.AXES names {axes}")
      return axes
  raise ValueError(f"no entry of param_axes.AXES matches the parameter {name}")
